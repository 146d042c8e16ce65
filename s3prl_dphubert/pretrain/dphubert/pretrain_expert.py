"""Where s3prl looks for the expert."""

import optimizers
from pretrain import runner

from s3prl_dphubert.pretrain.expert import UpstreamPretrainExpert
from s3prl_dphubert.pretrain.hooks import install

__all__ = ["UpstreamPretrainExpert"]

install(runner, optimizers)
