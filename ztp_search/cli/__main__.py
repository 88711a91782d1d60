"""`python -m ztp_search.cli`."""

import sys

from ztp_search.cli.entry import main

sys.exit(main())
