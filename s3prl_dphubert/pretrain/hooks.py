"""What s3prl's pretraining has to be taught: an optimizer, and to tell an expert its configuration."""

from __future__ import annotations

import functools
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

from .expert import UpstreamPretrainExpert
from .pretrain_config import OPTIMIZER


def install(runner: ModuleType, optimizers: ModuleType) -> None:
    """Hook into s3prl's modules ``pretrain.runner`` and ``optimizers``; a second call does nothing.

    s3prl gives an expert ``datarc`` alone, and optimizers ``total_steps`` even where ``n_epochs``
    decides, so the runner is made to show its configuration before it trains. Other upstreams are
    trained as ever.
    """
    train = runner.Runner.train
    if hasattr(train, "__wrapped__"):
        return

    @functools.wraps(train)
    def prepared(self: Any) -> None:
        expert = self.upstream
        if isinstance(expert, UpstreamPretrainExpert):
            expert.prepare(self.config, Path(self.args.expdir))
            setattr(optimizers, f"get_{OPTIMIZER}", lambda *_, **__: expert.optimizer)
        train(self)

    runner.Runner.train = prepared
    # Said again and again, of a name that torch still has.
    warnings.filterwarnings("ignore", message=r"`torch\.cuda\.amp", category=FutureWarning)
