"""`python -m ztp_search.cli`."""

import sys

from ztp_search.cli.main import main

sys.exit(main())
