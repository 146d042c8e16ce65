"""Where s3prl looks for the expert."""

import optimizers
from pretrain import runner

from ..expert import UpstreamPretrainExpert
from ..hooks import install

__all__ = ["UpstreamPretrainExpert"]

install(runner, optimizers)
