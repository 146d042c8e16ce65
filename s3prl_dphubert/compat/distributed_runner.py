"""Training in several processes: keep them in step, let them finish, and allow them to run on the CPU."""

from __future__ import annotations

import inspect
from typing import Any

from .patch import Patch, swapped, wrap


def _followers_never_stop(runner: Any) -> bool:
    code = inspect.getsource(runner.Runner.train)
    return 0 < code.find("if not is_leader_process():") < code.find("pbar.update(1)")


def _count_steps_of_followers(runner: Any) -> None:
    make_bar, is_leader_process = runner.tqdm, runner.is_leader_process

    def train(original, self) -> None:
        if is_leader_process():
            return original(self)
        bars: list[Any] = []
        calls = 0

        def tqdm(*args: Any, **kwargs: Any) -> Any:
            bar = make_bar(*args, **kwargs)
            if kwargs.get("desc") == "overall":
                bars.append(bar)
            return bar

        def is_leader_and_count() -> bool:
            """Return False; s3prl asks once for its logger, then after each step, which this counts."""
            nonlocal calls
            if bars:
                calls += 1
                if calls > 1:
                    bars[0].update(1)
            return False

        with swapped(runner, "tqdm", tqdm), swapped(runner, "is_leader_process", is_leader_and_count):
            original(self)

    wrap(runner.Runner, "train", train)


def _broadcasts_buffers(runner: Any) -> bool:
    code = inspect.getsource(runner.Runner._init_model)
    return "device_ids=[self.args.local_rank]" in code and "broadcast_buffers" not in code


def _broadcast_gradients_only(runner: Any) -> None:
    distributed = runner.DDP

    def on_its_device(model: Any, device_ids: Any = None, **kwargs: Any) -> Any:
        on_gpu = next(model.parameters()).is_cuda
        return distributed(
            model, device_ids=device_ids if on_gpu else None, broadcast_buffers=False, **kwargs
        )

    runner.DDP = on_its_device


def _sets_gpu(run_downstream: Any) -> bool:
    return "torch.cuda.set_device(args.local_rank)" in inspect.getsource(run_downstream.main)


def _set_gpu_if_any(run_downstream: Any) -> None:
    torch = run_downstream.torch

    def main(original, *args: Any) -> None:
        if torch.cuda.is_available():
            return original(*args)
        with swapped(torch.cuda, "set_device", lambda device: None):
            original(*args)

    wrap(run_downstream, "main", main)


PATCHES = (
    Patch(
        name="processes that end",
        module="s3prl.downstream.runner",
        reason="of several processes only the first counts its steps and finishes; the others wait forever",
        versions="s3prl 0.4.18; until all processes count steps",
        needed=_followers_never_stop,
        apply=_count_steps_of_followers,
    ),
    Patch(
        name="processes that evaluate",
        module="s3prl.downstream.runner",
        reason="the first of several processes evaluates alone, yet DDP broadcasts its buffers to the "
        "others, which are in a training step and lose their place; and on the CPU there is no GPU to name",
        versions="s3prl 0.4.18; until buffers are not broadcast and device_ids depends on the device",
        needed=_broadcasts_buffers,
        apply=_broadcast_gradients_only,
    ),
    Patch(
        name="processes without GPUs",
        module="s3prl.run_downstream",
        reason="each of several processes selects a GPU, which fails where there is none",
        versions="s3prl 0.4.18; until it checks --device",
        needed=_sets_gpu,
        apply=_set_gpu_if_any,
    ),
)
