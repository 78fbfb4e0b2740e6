"""Run the command line: ``python -m kokoon_async``."""

import sys

from .cli import main


sys.exit(main())
