"""`python -m ztp_search`."""

import sys

from ztp_search.cli.main import main

sys.exit(main())
