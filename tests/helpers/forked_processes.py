"""Real processes for tests: cheap to start, since they fork from one that has imported torch."""

from __future__ import annotations

import logging
import multiprocessing
import os
import socket
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FORKS = multiprocessing.get_context("forkserver")
# torch imports the first two when it builds an optimizer and a model without weights
FORKS.set_forkserver_preload(
    [
        "torch._dynamo",
        "torch.fx.experimental.symbolic_shapes",
        "torch.utils.tensorboard",
        "s3prl_dphubert.compression.pipeline",
        "pytest",
        "soundfile",
    ]
)


@dataclass
class Rank:
    """A process that runs one function; what it prints lies in ``output``."""

    process: Any
    output: Path

    @property
    def code(self) -> int | None:
        """Exit code, minus the signal that ended it."""
        return self.process.exitcode

    def wait(self, seconds: float = 240) -> Rank:
        self.process.join(seconds)
        if self.code is None:
            self.process.kill()
            raise TimeoutError(f"still running after {seconds} s: {self.text}")
        return self

    @property
    def text(self) -> str:
        return self.output.read_text()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def run(folder: Path, function: Callable[..., Any], *arguments: Any, world: int = 1) -> list[Rank]:
    """Start ``world`` processes that are one another's ranks; the function has to be importable."""
    folder.mkdir(parents=True, exist_ok=True)
    port, started = free_port(), len(list(folder.glob("*.txt")))
    ranks = []
    for rank in range(world):
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_PORT": port}
        environment = {name: str(value) for name, value in names.items()} | {"MASTER_ADDR": "127.0.0.1"}
        output = folder / f"{started}.{rank}.txt"
        process = FORKS.Process(target=_enter, args=(function, arguments, environment, output))
        process.start()
        ranks.append(Rank(process, output))
    return ranks


def finish(ranks: list[Rank]) -> None:
    """Wait for all; none may fail."""
    for rank in ranks:
        rank.wait()
        assert rank.code == 0, rank.text


def _enter(function: Callable[..., Any], arguments: Any, environment: dict[str, str], output: Path) -> None:
    import torch

    from s3prl_dphubert.errors import DPHubertError

    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, force=True)
    os.environ.update(environment)
    torch.set_num_threads(1)  # as torchrun has it
    multiprocessing.set_start_method("fork", force=True)  # loaders, as outside of tests
    try:
        function(*arguments)
    except DPHubertError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(2)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
