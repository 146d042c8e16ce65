"""Hooks into s3prl's pretraining: an optimizer, and the runner's configuration for the expert.

A module of its own because the files that ``link`` put into checkouts import it.
"""

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

    s3prl passes only ``datarc`` to an expert, and ``total_steps`` to an optimizer even if ``n_epochs``
    takes precedence. The hook passes the whole configuration to this package's expert before the
    training begins. The training of other upstreams does not change.
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
    # Repeated in every step, about a name that torch still has.
    warnings.filterwarnings("ignore", message=r"`torch\.cuda\.amp", category=FutureWarning)
