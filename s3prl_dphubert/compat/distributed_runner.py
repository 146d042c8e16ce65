"""Trainings by several processes: they keep step, come to an end, and may do without GPUs."""

from __future__ import annotations

import functools
import inspect
from typing import Any

from .patch import Patch, swapped


def _never_end(runner: Any) -> bool:
    code = inspect.getsource(runner.Runner.train)
    return 0 < code.find("if not is_leader_process():") < code.find("pbar.update(1)")


def _end(runner: Any) -> None:
    train, bar, leads = runner.Runner.train, runner.tqdm, runner.is_leader_process

    @functools.wraps(train)
    def counting(self: Any) -> None:
        if leads():
            return train(self)
        bars: list[Any] = []
        asked = 0

        def noted(*arguments: Any, **named: Any) -> Any:
            made = bar(*arguments, **named)
            if named.get("desc") == "overall":
                bars.append(made)
            return made

        def after_a_step() -> bool:
            """s3prl asks once for its logger, and then after each step; only who leads counts them."""
            nonlocal asked
            if bars:
                asked += 1
                if asked > 1:
                    bars[0].update(1)
            return False

        with swapped(runner, "tqdm", noted), swapped(runner, "is_leader_process", after_a_step):
            train(self)

    runner.Runner.train = counting


def _share_buffers(runner: Any) -> bool:
    code = inspect.getsource(runner.Runner._init_model)
    return "device_ids=[self.args.local_rank]" in code and "broadcast_buffers" not in code


def _share_gradients_only(runner: Any) -> None:
    parallel = runner.DDP

    def on_its_device(model: Any, device_ids: Any = None, **named: Any) -> Any:
        on_gpu = next(model.parameters()).is_cuda
        return parallel(model, device_ids=device_ids if on_gpu else None, broadcast_buffers=False, **named)

    runner.DDP = on_its_device


def _sets_a_gpu(run_downstream: Any) -> bool:
    return "torch.cuda.set_device(args.local_rank)" in inspect.getsource(run_downstream.main)


def _set_none(run_downstream: Any) -> None:
    torch, main = run_downstream.torch, run_downstream.main

    @functools.wraps(main)
    def without_gpu(*arguments: Any) -> None:
        if torch.cuda.is_available():
            return main(*arguments)
        with swapped(torch.cuda, "set_device", lambda device: None):
            main(*arguments)

    run_downstream.main = without_gpu


PATCHES = (
    Patch(
        name="processes that end",
        module="s3prl.downstream.runner",
        reason="of several processes only the first counts its steps; the others wait for it for ever",
        versions="s3prl 0.4.18; until all of them count",
        needed=_never_end,
        apply=_end,
    ),
    Patch(
        name="processes that evaluate",
        module="s3prl.downstream.runner",
        reason="the first of several processes evaluates alone and yet sends the best score to the others, "
        "which are in a step of training and never get in time again; and on the CPU none may have a GPU",
        versions="s3prl 0.4.18; until buffers are not broadcast and device_ids depends on the device",
        needed=_share_buffers,
        apply=_share_gradients_only,
    ),
    Patch(
        name="processes without GPUs",
        module="s3prl.run_downstream",
        reason="several processes each choose a GPU, which fails where there is none",
        versions="s3prl 0.4.18; until it looks at --device",
        needed=_sets_a_gpu,
        apply=_set_none,
    ),
)
