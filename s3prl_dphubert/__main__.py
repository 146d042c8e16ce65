"""``python -m s3prl_dphubert``, the same as ``s3prl-dphubert``."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
