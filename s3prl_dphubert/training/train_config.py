"""Configuration of one stage's training."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import ConfigError
from ..model.inference.precision_choice import AUTO
from ..model.speech_model import PRECISIONS


@dataclass(frozen=True)
class TrainConfig:
    """Training of one stage.

    Args:
        updates: optimizer steps.
        warmup: updates in which the learning rates rise; then they fall linearly to 0.
        lr: peak learning rate of weights and projections.
        gate_lr: peak learning rate of gates and multipliers.
        clip: largest gradient norm over all optimized parameters together.
        betas: decay rates of AdamW's moments of weights and projections.
        eps: added to the root of their second moment.
        weight_decay: decoupled decay of weights and projections, except for biases.
        feature_grad_mult: factor of the gradients of the conv feature extractor's weights, as in fairseq.
        average_best: number of checkpoints that validated best whose weights are averaged at the end, as
            ESPnet's ``keep_nbest_models`` does; 1 takes the best. For the last stage of a run.
        accumulate: micro-batches of each process per update. The published recipe has 4 in all: ``n``
            processes that accumulate ``4 / n`` make the same updates as one that accumulates 4.
        precision: ``fp32``, ``bf16`` or ``fp16`` (autocast); ``auto`` for the faster of fp32 and bf16, which
            is measured once per machine.
        teacher_precision: precision of the teacher, which has no gradients to lose; ``None`` for that of
            the student, or with ``auto`` its own.
        compile: on a GPU, compile teacher and student with torch.compile, which needs a C compiler and
            minutes at the start; where it fails, the run goes on without.
        max_nonfinite: number of updates in a row with a non-finite loss or gradient that ends the run.
        save_every: updates between checkpoints.
        keep: number of checkpoints to keep.
        validate_every: updates between validations.
        log_every: updates between rows of the log.
        num_workers: processes that read audio; 0 reads in the training process.

    Raises:
        ConfigError: listing every field that is wrong.
    """

    updates: int = 50_000
    warmup: int = 15_000
    lr: float = 2e-4
    gate_lr: float = 0.02
    clip: float = 10.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    feature_grad_mult: float = 1.0
    average_best: int = 1
    accumulate: int = 4
    precision: str = "fp32"
    teacher_precision: str | None = None
    compile: bool = False
    max_nonfinite: int = 20
    save_every: int = 1000
    keep: int = 2
    validate_every: int = 1000
    log_every: int = 50
    num_workers: int = 2

    def __post_init__(self) -> None:
        faults = []
        if not 0 <= self.warmup <= self.updates:
            faults.append(f"warmup is {self.warmup}, allowed: 0 to updates ({self.updates})")
        for name in (
            "updates",
            "accumulate",
            "max_nonfinite",
            "save_every",
            "keep",
            "validate_every",
            "log_every",
            "average_best",
        ):
            if getattr(self, name) < 1:
                faults.append(f"{name} is {getattr(self, name)}, allowed: 1 or more")
        for name in ("lr", "gate_lr", "clip", "eps"):
            if not getattr(self, name) > 0:
                faults.append(f"{name} is {getattr(self, name)}, allowed: more than 0")
        for name in ("weight_decay", "feature_grad_mult"):
            if not getattr(self, name) >= 0:
                faults.append(f"{name} is {getattr(self, name)}, allowed: 0 or more")
        if not all(0 <= beta < 1 for beta in self.betas):
            faults.append(f"betas is {list(self.betas)}, allowed: two numbers from 0 to below 1")
        if self.num_workers < 0:
            faults.append(f"num_workers is {self.num_workers}, allowed: 0 or more")
        precisions = (*PRECISIONS, AUTO)
        if self.precision not in precisions:
            faults.append(f"precision is {self.precision!r}, allowed: {', '.join(precisions)}")
        if self.teacher_precision not in (None, *precisions):
            allowed = f"null, {', '.join(precisions)}"
            faults.append(f"teacher_precision is {self.teacher_precision!r}, allowed: {allowed}")
        ConfigError.raise_for("training", faults)
