"""`python -m sfmttr`, the same as the command `sfmttr`."""

from __future__ import annotations

import sys

from sfmttr.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
