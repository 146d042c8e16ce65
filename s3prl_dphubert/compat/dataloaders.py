"""Data loaders that never yield a batch, and worker settings that s3prl forgets."""

from __future__ import annotations

import importlib
import inspect
import sys
from typing import Any

from ..errors import RunError
from .patch import Patch, wrap


def check(loader, split: str) -> None:
    """Refuse a loader without batches; s3prl would ask it for one forever.

    Raises:
        RunError: the loader is empty; the message gives the number of items and the batch size.
    """
    if not hasattr(loader, "__len__") or len(loader):
        return
    items = len(loader.dataset) if hasattr(loader, "dataset") else 0
    size = getattr(loader, "batch_size", None) or "unknown"
    hint = "; use a smaller batch size in the configuration or more data" if items else ""
    raise RunError(f"{split}: no batch in {items} items at batch size {size}, allowed: 1 batch or more{hint}")


def _check_loaders(runner: Any) -> None:
    def get_dataloader(original, split, *args, **kwargs):
        loader = original(split, *args, **kwargs)
        check(loader, split)
        return loader

    def get_downstream(original, self):
        entry = original(self)
        wrap(entry.model, "get_dataloader", get_dataloader)
        return entry

    wrap(runner.Runner, "_get_downstream", get_downstream)


def _copy_corpus_options(data: Any) -> None:
    def load_dataset(original, split, tokenizer, corpus):
        return original(split, tokenizer, dict(corpus))

    wrap(data, "load_dataset", load_dataset)


def _import_librosa_first(load_audio: Any) -> None:
    def init(original, self, *args, **kwargs):
        load_audio.librosa.load  # noqa: B018, reading the attribute imports the submodule
        importlib.import_module("librosa.util.utils")
        original(self, *args, **kwargs)

    wrap(load_audio.LoadAudio, "__init__", init)


PATCHES = (
    Patch(
        name="empty loaders",
        module="s3prl.downstream.runner",
        reason="training on fewer items than a batch loops forever without a step or a message",
        versions="s3prl 0.4.18; until the runner checks that its loader yields a batch",
        needed=lambda runner: "while pbar.n < pbar.total" in inspect.getsource(runner.Runner.train),
        apply=_check_loaders,
    ),
    Patch(
        name="ctc workers",
        module="s3prl.downstream.ctc.data",
        reason="PR and SF use num_workers for the first loader only, then 12, and save that value",
        versions="s3prl 0.4.18; until load_dataset leaves the configuration alone",
        needed=lambda data: "corpus.pop(" in inspect.getsource(data.load_dataset),
        apply=_copy_corpus_options,
    ),
    Patch(
        name="load_audio workers",
        module="s3prl.dataio.dataset.load_audio",
        reason="each worker of each loader of SuperbKS and related tasks imports librosa again, for seconds",
        versions="librosa >= 0.10, which imports its submodules when they are first used",
        needed=lambda _: "librosa.util.utils" not in sys.modules,
        apply=_import_librosa_first,
    ),
)
