"""``python -m s3prl_dphubert.cli`` is the same as ``s3prl-dphubert``."""

import sys

from . import main

sys.exit(main())
