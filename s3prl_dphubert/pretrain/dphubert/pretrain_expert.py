"""The expert, at the place where s3prl looks for it."""

import optimizers
from pretrain import runner

from ..expert import UpstreamPretrainExpert
from ..hooks import install

__all__ = ["UpstreamPretrainExpert"]

install(runner, optimizers)
