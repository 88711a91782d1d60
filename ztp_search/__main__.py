"""`python -m ztp_search`."""

import sys

from ztp_search.cli.entry import main

sys.exit(main())
