"""Compression pipeline: joint distillation and pruning, then distillation of the pruned model.

A run's directory holds all of its state, so that calling :func:`compress` again continues an
interrupted run::

    config.yaml               configuration
    inputs.json               digests of the teacher and the manifests
    student/                  initial student, if it is no copy of the teacher
    stage1/, stage2/          checkpoints, log.jsonl, TensorBoard events
    targets/                  hidden states of the teacher, with ``cache_teacher``
    pruned/                   model right after pruning
    projections.safetensors   projections of the objective, carried into stage 2
    model/                    result
    results.json              losses, costs and remaining units
    training.png, units.png   plots

A run of several ``sizes`` has one stage 1, for each size a directory (``0.75``) with all that follows, and
``sizes.md``, a table of them.

Under ``torchrun`` every process runs the same code. Only process 0 writes; the others read what they
need from the directory, which therefore has to be visible to all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, overload

from ..data.dataset import DataConfig
from ..errors import ConfigError
from ..model import SpeechModel
from ..pruning.budget import Budget
from ..training.determinism import deterministic_kernels, say_repeatable
from ..training.distributed import join
from .compress_config import CompressConfig
from .compression_run import CompressionRun
from .run_directory import run_directory
from .run_sizes import SeveralSizes


@overload
def compress(config: CompressConfig | str | Path, out: str | Path, **fields: Any) -> SpeechModel: ...


@overload
def compress(
    *,
    out: str | Path,
    teacher: str | Path,
    data: str | Path | DataConfig | Mapping[str, Any],
    budget: float | str | Budget | Mapping[str, Any] = ...,
    **fields: Any,
) -> SpeechModel: ...


def compress(
    config: CompressConfig | str | Path | None = None, out: str | Path | None = None, **fields: Any
) -> SpeechModel:
    """Compress a teacher, and return the small model, which is also saved in ``out/model``.

    A run that was interrupted continues when it is started again::

        compress("dphubert_base", "runs/dphubert")
        compress("dphubert_base", "runs/mine", data="speech.tsv", stage1={"updates": 20_000})
        compress(teacher="hubert_mini", data="speech.tsv", budget=0.75, out="runs/nano")
        compress(teacher="hubert_base", data="speech.tsv", budget={"macs": "8G"}, out="runs/fast")

    Args:
        config: configuration, YAML file, or name of a built-in configuration; by default the published
            recipe, to which ``teacher`` and ``data`` have to be given.
        out: directory of the run; new, or that of the same run.
        fields: fields of :class:`CompressConfig` that differ from ``config``, as for
            :meth:`CompressConfig.create`.

    Returns:
        The result, of several ``sizes`` the smallest, in eval mode on the CPU.

    Raises:
        ConfigError: the configuration is wrong; all faults are listed.
        DataError: a manifest cannot be used, or too many of its files are bad.
        CheckpointError: the teacher does not exist, or cannot be downloaded or read.
        RunError: ``out`` belongs to another run or is in use, training diverged, or another
            process of the run was lost.
    """
    if out is None:
        raise ConfigError("out is missing, allowed: the directory of the run")
    out = Path(out)
    if not isinstance(config, CompressConfig) or fields:
        config = CompressConfig.create(config, **fields)
    with (
        deterministic_kernels(config.deterministic),
        join(config.device) as processes,
        run_directory(config, out) if processes.main else nullcontext(),
    ):
        say_repeatable(processes.device)
        kind = SeveralSizes if config.sizes else CompressionRun
        return kind(config, out, processes).finish()
