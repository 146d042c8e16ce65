"""``python -m s3prl_dphubert.cli``, the same as ``s3prl-dphubert``."""

import sys

from . import main

if __name__ == "__main__":
    sys.exit(main())
