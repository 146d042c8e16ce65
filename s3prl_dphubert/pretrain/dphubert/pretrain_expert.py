"""The expert, at the place where s3prl looks for it.

Imports are absolute because s3prl imports this file, or a copy of it, as part of its own ``pretrain``.
"""

import optimizers
from pretrain import runner

from s3prl_dphubert.pretrain.expert import UpstreamPretrainExpert
from s3prl_dphubert.pretrain.hooks import install

__all__ = ["UpstreamPretrainExpert"]

install(runner, optimizers)
