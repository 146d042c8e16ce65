"""Progress bars that are turned off, by which s3prl counts its steps all the same."""

from __future__ import annotations

import inspect
from typing import Any

from .patch import Patch

RUNNERS = {"run_downstream": "s3prl.downstream.runner", "run_pretrain": "pretrain.runner"}
"""Script -> the module that it trains with, by the name under which the script imports it."""


def _counts_by_bar(runner: Any) -> bool:
    train = getattr(getattr(runner, "Runner", None), "train", None)  # another project may have such a module
    if train is None or "while pbar.n < pbar.total" not in inspect.getsource(train):
        return False
    bar = runner.tqdm(total=1, disable=True)
    bar.update(1)
    return bar.n == 0


def _count_when_disabled(runner: Any) -> None:
    class CountingTqdm(runner.tqdm):
        """A bar that knows how far it is also when it shows nothing."""

        def update(self, n: float = 1) -> bool | None:
            if self.disable:
                self.n += n
                return None
            return super().update(n)

    runner.tqdm = CountingTqdm


PATCHES = tuple(
    Patch(
        name=f"steps of {script}",
        module=module,
        reason="with TQDM_DISABLE=1, as many servers set it, step 1 is repeated for ever and never saved",
        versions="s3prl 0.4.18; until it counts steps itself",
        needed=_counts_by_bar,
        apply=_count_when_disabled,
    )
    for script, module in RUNNERS.items()
)
