"""`python -m facenet_fast` is the command `facenet-fast`."""

import sys

from facenet_fast.cli import main

if __name__ == "__main__":
    sys.exit(main())
