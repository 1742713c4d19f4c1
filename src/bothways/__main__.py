"""`python -m bothways` is the command line."""

import sys

from bothways.cli.main import main

sys.exit(main())
