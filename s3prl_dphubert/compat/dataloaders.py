"""Data loaders that would never give a batch, and workers that s3prl forgets."""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
from typing import Any

from ..errors import RunError
from .patch import Patch

TRAIN = "train"


def _refuse_empty(runner: Any) -> None:
    get_downstream = runner.Runner._get_downstream

    @functools.wraps(get_downstream)
    def with_checked_loaders(self):
        entry = get_downstream(self)
        get_dataloader = entry.model.get_dataloader

        @functools.wraps(get_dataloader)
        def checked(split, *args, **kwargs):
            loader = get_dataloader(split, *args, **kwargs)
            check(loader, split)
            return loader

        entry.model.get_dataloader = checked
        return entry

    runner.Runner._get_downstream = with_checked_loaders


def check(loader, split: str) -> None:
    """Refuse a loader of no batches: s3prl would ask it again and again for one.

    Raises:
        RunError: naming how many items and of what batch size there are.
    """
    if not hasattr(loader, "__len__") or len(loader):
        return
    items = len(loader.dataset) if hasattr(loader, "dataset") else 0
    size = getattr(loader, "batch_size", None) or "unknown"
    hint = "; use a smaller batch size in the configuration or more data" if items else ""
    raise RunError(f"{split}: no batch in {items} items at batch size {size}, allowed: 1 batch or more{hint}")


def _keep_workers(data: Any) -> None:
    load_dataset = data.load_dataset

    @functools.wraps(load_dataset)
    def with_a_copy(split, tokenizer, corpus):
        return load_dataset(split, tokenizer, dict(corpus))

    data.load_dataset = with_a_copy


def _without_librosa(load_audio: Any) -> bool:
    return "librosa.util.utils" not in sys.modules


def _import_once(load_audio: Any) -> None:
    init = load_audio.LoadAudio.__init__

    @functools.wraps(init)
    def with_librosa(self, *args, **kwargs):
        load_audio.librosa.load  # noqa: B018, imported when it is read
        importlib.import_module("librosa.util.utils")
        init(self, *args, **kwargs)

    load_audio.LoadAudio.__init__ = with_librosa


PATCHES = (
    Patch(
        name="empty loaders",
        module="s3prl.downstream.runner",
        reason="training on fewer items than a batch goes on for ever without a step or a word",
        versions="s3prl 0.4.18; until the runner checks that its loader gives a batch",
        needed=lambda runner: "while pbar.n < pbar.total" in inspect.getsource(runner.Runner.train),
        apply=_refuse_empty,
    ),
    Patch(
        name="ctc workers",
        module="s3prl.downstream.ctc.data",
        reason="PR and SF use num_workers for the first loader only, then 12, and save it so",
        versions="s3prl 0.4.18; until load_dataset leaves the configuration alone",
        needed=lambda data: "corpus.pop(" in inspect.getsource(data.load_dataset),
        apply=_keep_workers,
    ),
    Patch(
        name="load_audio workers",
        module="s3prl.dataio.dataset.load_audio",
        reason="each worker of each loader of SuperbKS and its kin imports librosa anew, for seconds",
        versions="librosa >= 0.10, which imports its parts when they are first read",
        needed=_without_librosa,
        apply=_import_once,
    ),
)
