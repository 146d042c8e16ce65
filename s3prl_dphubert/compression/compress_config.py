"""Configuration of a compression run."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..checkpoints.card_metadata import CardMetadata
from ..data.dataset import DataConfig
from ..distillation.objective import ObjectiveConfig
from ..distillation.student_init import StudentConfig
from ..errors import ConfigError
from ..pruning.budget import Budget, read_amount
from ..pruning.gates import GateConfig
from ..training.train_config import TrainConfig
from ..utils import resources
from ..utils.config_io import from_dict, is_number, merge, read_yaml, to_dict

DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")


def _stage2() -> TrainConfig:
    return TrainConfig(updates=25_000, warmup=5_000, lr=1e-4)


@dataclass(frozen=True)
class CompressConfig:
    """A compression run: joint distillation and pruning, then distillation of the pruned model.

    Either stage may be ``None``. Without stage 1 nothing is pruned: a ``student`` with a shape of its own
    is distilled, and gates and budget are not used. Without stage 2 the result is the model right after
    pruning. The defaults are the published recipe (Peng et al. 2023), but for the precision, which is
    ``fp32`` rather than ``fp16``.

    Args:
        teacher: name, path or Hub id, as for :func:`s3prl_dphubert.load_model`.
        data: audio to train and to validate on.
        seed: seed of everything random.
        device: ``cpu``, ``cuda``, ``cuda:N``, or ``auto`` for ``cuda`` where there is a GPU, else ``cpu``.
        deterministic: on a GPU, use only kernels that add in a fixed order, so that a resumed run ends with
            the same weights to the bit, as on the CPU; slower.
        gates: units that are gated.
        budget: share of the teacher's cost to remove.
        objective: hidden states to match, and their distance.
        student: shape of the student; ``None`` starts from a copy of the teacher.
        cache_teacher: keep the teacher's hidden states on disk; needs ``data.batch.crops: fixed``.
        cache_gigabytes: disk space that they may take.
        stage1: training with gates, which pruning follows.
        stage2: training of the pruned model or of the student.
        sizes: several sizes of the budget's count from one stage 1, from the largest model to the smallest:
            shares of the teacher to remove (``[0.5, 0.75, 0.9]``) or amounts (``[48M, 24M]``). Each is
            trained in stage 2 and has a directory of its own. The budget's constraint is ``projection`` then.
        card: what the model card states beside the model's shape.

    Raises:
        ConfigError: listing every field that is wrong.
    """

    teacher: str
    data: DataConfig
    seed: int = 0
    device: str = "auto"
    deterministic: bool = False
    gates: GateConfig = field(default_factory=GateConfig)
    budget: Budget = field(default_factory=Budget)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    student: StudentConfig | None = None
    cache_teacher: bool = False
    cache_gigabytes: float = 100.0
    stage1: TrainConfig | None = field(default_factory=TrainConfig)
    stage2: TrainConfig | None = field(default_factory=_stage2)
    sizes: tuple[float | str, ...] = ()
    card: CardMetadata = field(default_factory=CardMetadata)

    def __post_init__(self) -> None:
        faults = []
        if not DEVICE.fullmatch(self.device):
            faults.append(f"device is {self.device!r}, allowed: auto, cpu, cuda, cuda:N")
        if self.seed < 0:
            faults.append(f"seed is {self.seed}, allowed: 0 or more")
        if self.cache_teacher and self.data.batch.crops != "fixed":
            faults.append(
                "cache_teacher is true and data.batch.crops is random, allowed: fixed; random crops "
                "differ in every epoch, and no hidden state would be used twice"
            )
        if not self.cache_gigabytes > 0:
            faults.append(f"cache_gigabytes is {self.cache_gigabytes}, allowed: more than 0")
        if self.stage1 is None and self.stage2 is None:
            faults.append("stage1 and stage2 are both null, allowed: at least one of them")
        if self.stage1 is None and self.student is None:
            faults.append("stage1 is null without a student, allowed: either of them makes the model smaller")
        if self.stage1 is not None and self.stage1.average_best > 1:
            faults.append(f"stage1.average_best is {self.stage1.average_best}, allowed: 1; stage 2 averages")
        if self.stage1 is not None and self.budget.warmup > self.stage1.updates:
            allowed = f"0 to stage1.updates ({self.stage1.updates})"
            faults.append(f"budget.warmup is {self.budget.warmup}, allowed: {allowed}")
        ConfigError.raise_for("run", [*faults, *self._size_faults()])

    def _size_faults(self) -> Iterator[str]:
        if self.sizes and self.stage1 is None:
            yield "sizes are given without stage1, allowed with it: stage 1 prunes"
        elif self.sizes and len(self.budget.counts) != 1:
            yield f"sizes are given and budget limits {', '.join(self.budget.counts)}, allowed: one count"
        else:
            for size in self.sizes:
                amount = read_amount(size)
                if amount is None or not 0 < amount < math.inf:
                    yield f"sizes has {size!r}, allowed: shares between 0 and 1, or amounts such as 24M"
        if len(set(map(str, self.sizes))) < len(self.sizes):
            yield f"sizes is {list(self.sizes)}, allowed: each size once"

    @classmethod
    def create(cls, base: CompressConfig | str | Path | None = None, **fields: Any) -> CompressConfig:
        """Build a configuration from a base and the fields that differ from it.

        Args:
            base: a configuration, a YAML file, or the name of a built-in one such as ``dphubert_base``;
                by default the published recipe, to which ``teacher`` and ``data`` have to be added.
            fields: values of this class's fields. A section is an object, which replaces that of the base,
                or a mapping, whose values are laid over it. ``data`` may also be the path of the training
                manifest, and ``budget`` the share of the teacher's parameters to remove (0.75), or the most
                parameters that remain (``24M``).

        Raises:
            ConfigError: listing every fault, or the base cannot be read.
            ResourceError: there is no such built-in configuration.
        """
        values: dict[str, Any] = {}
        if isinstance(base, CompressConfig):
            values = to_dict(base)
        elif base is not None:
            values = read_yaml(find_config(base))
        for name, value in fields.items():
            if isinstance(value, Path):
                value = str(value)
            if name == "data" and isinstance(value, str):
                value = {"train": value}
            elif name == "budget" and is_number(value):
                value = {"sparsity": value}
            elif name == "budget" and isinstance(value, str):
                value = {"parameters": value}
            if isinstance(value, Mapping):
                values = merge(values, {name: dict(value)})
            else:
                values[name] = value
        return from_dict(cls, values, str(base) if isinstance(base, str | Path) else "configuration")


def find_config(config: str | Path) -> Path:
    """Return the path of a run's YAML file, given that path or the name of a built-in configuration.

    Raises:
        ResourceError: the text is neither a file nor such a name; the message lists the names.
    """
    path = Path(config)
    if path.exists() or path.name != str(config) or path.suffix:
        return path
    try:
        return resources.find(f"upstream_configs/{path}.yaml")
    except resources.ResourceError as error:
        names = sorted(file.stem for file in resources.find("upstream_configs").glob("*.yaml"))
        text = f"{config}: neither a file nor a built-in configuration, allowed: {', '.join(names)}"
        raise resources.ResourceError(text) from error
