"""Training tasks: distillation of a student, and joint distillation and pruning of a gated one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..data.batches import Batch
from ..model import SpeechModel
from ..model.compilation import CompiledFunction
from ..model.inference.folded import FoldedModel, fold
from ..model.masks import NO_MASKS, Masks
from ..model.sparse.sparse_forward import sparse_features
from ..model.speech_model import AUTOCAST, autocast
from ..pruning.allocation import check_reachable
from ..pruning.budget import Budget, Lagrangian
from ..pruning.gated_model import GatedModel
from ..pruning.structured import final_masks
from ..training.optimizer import linear_schedule
from ..training.train_config import TrainConfig
from .objective import Objective
from .target_cache import TargetCache

PRECISION_OF = {torch.float32: "fp32", **{dtype: name for name, dtype in AUTOCAST.items()}}


class Distillation:
    """Distillation of a teacher's hidden states into a student of fixed shape.

    Args:
        teacher: set to eval mode and frozen.
        student: model to train, taken over without a copy.
        objective: matched hidden states and their distance.
        config: peak learning rate of student and projections, and precision of the teacher.
        valid: validation batches.
    """

    def __init__(
        self,
        teacher: SpeechModel,
        student: SpeechModel,
        objective: Objective,
        config: TrainConfig,
        valid: Sequence[Batch] = (),
    ) -> None:
        self.teacher = teacher.eval().requires_grad_(False)
        self.model, self.objective = student, objective
        self.config, self.valid = config, valid
        self.cache: TargetCache | None = None
        self._compiled: dict[SpeechModel, CompiledFunction] = {}
        self._folded: dict[str, FoldedModel] = {}  # the teacher as a CPU runs it, by precision
        self.module: nn.Module = nn.ModuleDict({"student": student, "objective": objective})
        self.module.to(self.device)
        if config.feature_grad_mult != 1:
            for parameter in student.feature_extractor.parameters():
                if parameter.requires_grad:
                    parameter.register_hook(lambda gradient: gradient * config.feature_grad_mult)

    @property
    def device(self) -> torch.device:
        """Device of the teacher, where the student is trained, too."""
        return next(self.teacher.parameters()).device

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the weights of student and objective; biases in a group of their own if weights decay."""
        train = self.config
        named = [*self.model.named_parameters(), *self.objective.named_parameters()]
        named = [(name, p) for name, p in named if p.requires_grad]
        settings = {"base_lr": train.lr, "betas": train.betas, "eps": train.eps}
        if not train.weight_decay:
            return [{"params": [p for _, p in named], "name": "weights", **settings}]
        biases = [p for name, p in named if name.endswith("bias")]
        weights = [p for name, p in named if not name.endswith("bias")]
        return [
            {"params": weights, "name": "weights", "weight_decay": train.weight_decay, **settings},
            {"params": biases, "name": "biases", **settings},
        ]

    def step(self, batch: Batch, update: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Any]]:
        """Compute the distillation loss (0-d) of a micro-batch, and its terms as named scalars."""
        targets = self.cached_targets(batch)
        masks = self.sample_masks(generator)
        hidden, masked = self.student_states(batch.waveforms, masks, generator)
        loss, terms = self.objective(hidden, targets, masked)
        scalars: dict[str, Any] = {name: value.detach() for name, value in terms.items()}
        scalars["distillation"] = loss.detach()
        return loss, scalars

    def student_states(
        self, waveforms: Tensor, masks: Masks, generator: torch.Generator
    ) -> tuple[list[Tensor], Tensor | None]:
        """Return the hidden states [L+1] (B, F, D) of waveforms (B, T), and the masked frames (B, F)."""
        masking, masked, corrupt = self.objective.masking, None, None
        if masking is not None:
            masked = masking.draw(len(waveforms), self.model.config.frames(waveforms.shape[1]), generator)
            corrupt = partial(masking, mask=masked)
        if waveforms.device.type == "cpu" and not self.closed_units_learn:
            return sparse_features(self.model, waveforms, masks, corrupt), masked
        return self._gpu_features(self.model)(waveforms, masks=masks, corrupt=corrupt)[0], masked

    def _gpu_features(self, model: SpeechModel) -> Callable[..., Any]:
        """Return how hidden states of a model are computed in training on a GPU, compiled if asked for."""
        if not self.config.compile or self.device.type == "cpu":
            return model.extract_features
        if model not in self._compiled:
            self._compiled[model] = CompiledFunction(model.extract_features)
        return self._compiled[model]

    @property
    def closed_units_learn(self) -> bool:
        """Return whether closed units have gradients, and so cannot be left out."""
        return False

    def after_update(self, update: int) -> None:
        """Do what has to follow an optimizer step; nothing for a student of fixed shape."""

    def sample_masks(self, generator: torch.Generator) -> Masks:
        """Return the masks of one training step; a student of fixed shape has none."""
        return NO_MASKS

    def cached_targets(self, batch: Batch) -> Mapping[int, Tensor] | list[Tensor]:
        """Return the targets of a batch by layer, each (B, F, D), from the cache if there is one."""
        waveforms = batch.waveforms
        if self.cache is None or not batch.keys:
            return self.targets(waveforms)
        precision = self._teacher_precision(waveforms.device.type)
        with torch.no_grad():
            return self.cache.get(batch.keys, precision, lambda: self.targets(waveforms))

    def _teacher_precision(self, device: str) -> str:
        active = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if active else torch.float32
        return self.config.teacher_precision or PRECISION_OF[dtype]

    @torch.no_grad()
    def targets(self, waveforms: Tensor) -> list[Tensor]:
        """Compute the teacher's hidden states (B, F, D) of waveforms (B, T), up to the last matched layer."""
        depth, device = self.objective.depth, waveforms.device
        precision = self._teacher_precision(device.type)
        if device.type != "cpu":
            with autocast(device, precision):
                return self._gpu_features(self.teacher)(waveforms, num_layers=depth)[0]
        if precision not in self._folded:
            self._folded[precision] = fold(self.teacher, precision)
        return self._folded[precision].extract_features(waveforms, num_layers=depth)[0]

    def validate(self) -> dict[str, float]:
        """Return the mean loss terms over the validation batches; empty without any."""
        return self.evaluate()

    @torch.no_grad()
    def evaluate(self, masks: Masks = NO_MASKS) -> dict[str, float]:
        """Return the mean loss terms over the validation batches under the given masks."""
        if not self.valid:
            return {}
        was_training = self.module.training
        self.module.eval()
        rows: list[Tensor] = []
        names: list[str] = []
        for batch in self.valid:
            waveforms = batch.to(self.device).waveforms
            targets = self.targets(waveforms)
            loss, terms = self.objective(self.model.extract_features(waveforms, masks=masks)[0], targets)
            names = ["loss", *terms]
            rows.append(torch.stack([loss.double(), *(value.double() for value in terms.values())]))
        self.module.train(was_training)
        columns = torch.stack(
            rows, 1
        ).tolist()  # read once, so that a GPU is not kept waiting between batches
        return {
            name: sum(value / len(self.valid) for value in column)
            for name, column in zip(names, columns, strict=True)
        }


class JointPruning(Distillation):
    """Distillation that learns at the same time which units of the student to keep within a budget.

    Adds to plain distillation the student's gates, a penalty for missing the target sparsity, and the
    penalty's multipliers (Peng et al. 2023, section 2.3).

    Args:
        teacher: set to eval mode and frozen; the budget is a share of its cost.
        student: gated model to train, taken over without a copy.
        objective: matched hidden states and their distance.
        config: peak learning rates, and precision of the teacher.
        budget: share of the teacher's cost to remove.
        valid: validation batches.

    Raises:
        RunError: no choice of the gated units keeps the budget.
    """

    def __init__(
        self,
        teacher: SpeechModel,
        student: GatedModel,
        objective: Objective,
        config: TrainConfig,
        budget: Budget,
        valid: Sequence[Batch] = (),
    ) -> None:
        super().__init__(teacher, student.model, objective, config, valid)
        self.full_costs = budget.costs(teacher.config)
        self.student, self.budget = student, budget.relative_to(self.full_costs)
        budget = self.budget
        self.lagrangian = Lagrangian(budget.shares)
        self.gaps: dict[str, Tensor] = {}  # count -> sparsity minus target, of the last step
        check_reachable(student.model.config, student.gates, budget, budget.limits(self.full_costs))
        costs = budget.costs(student.model.config)
        self.initial_sparsity = {count: 1 - cost / self.full_costs[count] for count, cost in costs.items()}
        parts = {"student": student, "objective": objective, "lagrangian": self.lagrangian}
        self.module = nn.ModuleDict(parts).to(self.device)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the groups of weights, gates and multipliers; the multipliers ascend."""
        gate_lr = self.config.gate_lr
        gates = {"params": list(self.student.gates.parameters()), "base_lr": gate_lr, "name": "gates"}
        multipliers = {"params": list(self.lagrangian.parameters()), "base_lr": gate_lr}
        return [*super().parameter_groups(), gates, {**multipliers, "maximize": True, "name": "multipliers"}]

    def step(self, batch: Batch, update: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Any]]:
        """Compute distillation loss plus penalty (0-d), and their parts as named scalars."""
        loss, scalars = super().step(batch, update, generator)
        sparsity, targets = self.sparsity(), self.budget.targets(update, self.initial_sparsity)
        loss = loss + self.lagrangian(sparsity, targets).to(loss.device)
        self.gaps = {count: (sparsity[count] - target).detach() for count, target in targets.items()}
        for count, target in targets.items():
            suffix = f"_{count}" if len(targets) > 1 else ""
            scalars[f"sparsity{suffix}"] = sparsity[count].detach()
            scalars[f"target_sparsity{suffix}"] = target
        return loss, scalars

    @property
    def closed_units_learn(self) -> bool:
        """Return whether closed units have gradients, as straight-through gates give them."""
        return self.student.gates.config.estimator == "straight_through"

    def after_update(self, update: int) -> None:
        """Move the gates towards the target if the budget asks for it.

        They move by twice their learning rate at most: AdamW moves them by about that rate, so that this
        prevails. The penalty sees what the last update moved them away from the target, so that its
        multipliers come to rest where nothing does.
        """
        train = self.config
        may_open, may_close = self.budget.may_move(update, train.updates)
        if may_open or may_close:
            limit = 2 * linear_schedule(update, train.gate_lr, train.warmup, train.updates)
            self.student.project(
                self.budget, self.full_costs, self.gaps, -limit * may_close, limit * may_open
            )

    def sample_masks(self, generator: torch.Generator) -> Masks:
        """Sample the gates for one training step."""
        return self.student.gates.sample(generator)

    def sparsity(self) -> dict[str, Tensor]:
        """Count -> expected share of the teacher's cost that the gates remove, 0-d and differentiable."""
        return self.student.expected_sparsity(self.budget, self.full_costs)

    def check_sparsity(self) -> None:
        """Refuse to prune a student that is too far from the budget, as :meth:`GatedModel.check_sparsity`.

        Raises:
            RunError: the expected sparsity misses its target by more than the budget's tolerance.
        """
        self.student.check_sparsity(self.budget, self.full_costs)

    def final_masks(self) -> Masks:
        """Return the masks by which the student would be cut now, within the budget.

        Raises:
            RunError: no choice of the gated units keeps the budget.
        """
        return final_masks(self.student, self.budget, self.full_costs)

    def validate(self) -> dict[str, float]:
        """Return the mean loss terms over the validation batches under the deterministic masks."""
        return self.evaluate(self.student.gates.masks())
