"""`python -m functrace`: the same as the command `functrace`."""

import sys

from functrace.cli import main

if __name__ == "__main__":
    sys.exit(main())
