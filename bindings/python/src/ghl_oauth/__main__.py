"""``python -m ghl_oauth``: see :mod:`ghl_oauth.cli`."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
