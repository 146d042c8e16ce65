"""The processes of one run: who each is, what they tell each other, and whether all still live.

``torchrun`` starts them and names them in RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and
MASTER_PORT. They have to see the same files: process 0 writes, the others read.
"""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import Store

from ..errors import RunError
from .heartbeat import Heartbeat

START = timedelta(minutes=10)  # for all to appear: they import, and from slow disks
# No limit that a long validation of process 0 could break: who lives is for the heartbeat to tell.
PATIENCE = timedelta(days=7)
BUCKET = 16 * 2**20  # elements sent at once
KNOCK = timedelta(seconds=5)  # for an answer from one that has appeared
PLACE, FAILED = "place", "failed"


class Processes:
    """One of the ``world`` processes of a run. A run of one process talks to nobody.

    All processes have to call the same methods in the same order.

    Args:
        rank: which one this is, from 0.
        world: how many there are.
        device: where this one computes.
        store: what all can read, if there are several.
    """

    def __init__(
        self, rank: int = 0, world: int = 1, device: str = "cpu", store: Store | None = None
    ) -> None:
        self.rank, self.world, self.device, self.store = rank, world, torch.device(device), store

    @property
    def main(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def wait(self) -> None:
        """Return when all have come here, however long that takes."""
        self.all(True)

    def share(self, value: Any) -> Any:
        """Process 0's value of plain Python, for all."""
        if self.world == 1:
            return value
        held = [value]
        with self._talking():
            dist.broadcast_object_list(held, src=0, device=torch.device("cpu"))
        return held[0]

    def all(self, flag: bool) -> bool:
        """Whether the flag is true in all."""
        if self.world == 1:
            return flag
        answer = torch.tensor(int(flag))
        with self._talking():
            dist.all_reduce(answer, dist.ReduceOp.MIN)
        return bool(answer)

    def mean(self, scalars: dict[str, float]) -> dict[str, float]:
        """The mean over all processes of each scalar; all have the same names."""
        if self.world == 1:
            return scalars
        values = torch.tensor(list(scalars.values()), dtype=torch.float64)
        with self._talking():
            dist.all_reduce(values)
        return dict(zip(scalars, (values / self.world).tolist(), strict=True))

    def add(self, tensors: list[Tensor]) -> None:
        """Replace each tensor by its sum over all processes."""
        self._exchange(tensors, dist.all_reduce)

    def copy(self, module: nn.Module) -> None:
        """Give the parameters and buffers of process 0 to all."""
        self._exchange(list(module.state_dict().values()), lambda flat: dist.broadcast(flat, src=0))

    def _exchange(self, tensors: list[Tensor], operation: Any) -> None:
        if self.world == 1:
            return
        for bucket in _buckets(tensors):
            flat = torch.cat([tensor.detach().reshape(-1) for tensor in bucket])
            with self._talking():
                operation(flat)
            parts = flat.split([tensor.numel() for tensor in bucket])
            for tensor, part in zip(bucket, parts, strict=True):
                tensor.detach().copy_(part.view_as(tensor))

    def fail(self, error: BaseException) -> None:
        """Leave a word for the others on why this process ends."""
        message = f"process {self.rank} stopped: {str(error) or type(error).__name__}"
        try:
            if self.store is not None:
                self.store.compare_set(FAILED, "", message)  # the first word counts
        except RuntimeError:
            logging.getLogger(__name__).debug("no one hears: %s", message)

    @contextmanager
    def _talking(self) -> Iterator[None]:
        """Turn a broken connection into an error that names its cause, as far as it is known."""
        try:
            yield
        except RuntimeError as error:
            raise RunError(self._last_word() or f"lost another process of the run ({error})") from error

    def _last_word(self) -> str:
        try:
            if self.store is not None and self.store.check([FAILED]):
                return self.store.get(FAILED).decode()
        except RuntimeError:  # process 0, which keeps the store, is the one that is gone
            pass
        return ""


def _buckets(tensors: list[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    for tensor in tensors:
        if bucket and sum(t.numel() for t in bucket) + tensor.numel() > BUCKET:
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


@contextmanager
def join(device: str) -> Iterator[Processes]:
    """Join the other processes of the run, if the environment names any, and leave with them.

    A process that dies or falls silent ends all others within a minute, whatever they wait for.

    Args:
        device: ``cpu``, ``cuda`` (each process takes the GPU of its LOCAL_RANK), or, for one
            process alone, ``cuda:N``.

    Raises:
        RunError: there is no GPU, the environment is incomplete, ``device`` is one GPU for several
            processes, not all processes appear, or one is lost on the way.
    """
    if device != "cpu" and not torch.cuda.is_available():
        raise RunError(f"device is {device!r}, and torch sees no GPU here; allowed: cpu")
    if os.environ.get("WORLD_SIZE", "1") == "1":
        yield Processes(device=device)
        return
    rank, world, device = _place(device)
    store = _meet(rank, world)
    heartbeat = Heartbeat(connect(store.host, store.port, KNOCK), rank, world)
    processes = Processes(rank, world, device, store)
    backend = "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl"
    with _quiet(rank):
        try:
            with processes._talking():
                place = dist.PrefixStore("group", store)
                dist.init_process_group(backend, store=place, rank=rank, world_size=world, timeout=PATIENCE)
            yield processes
            processes.wait()  # then none may take another's end for a death
        except BaseException as error:
            processes.fail(error)
            if device == "cpu" and dist.is_initialized():
                dist.destroy_process_group()  # tells the others; with NCCL it could wait for them
            raise
        finally:
            heartbeat.stop()
        processes.wait()
        dist.destroy_process_group()


def _place(device: str) -> tuple[int, int, str]:
    """Rank, world and the device of this process."""
    names = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    missing = [name for name in names if not os.environ.get(name)]
    if missing:
        raise RunError(f"WORLD_SIZE is set and {', '.join(missing)} not; torchrun sets them all")
    if dist.is_initialized():
        raise RunError("torch.distributed is in use already; a run makes its own process group")
    try:
        rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        local = int(os.environ.get("LOCAL_RANK", rank))
    except ValueError as error:
        raise RunError(f"RANK, LOCAL_RANK and WORLD_SIZE have to be whole numbers ({error})") from error
    if device == "cpu":
        return rank, world, device
    if device != "cuda":
        raise RunError(f"device is {device!r}, allowed for {world} processes: cpu, cuda")
    if local >= torch.cuda.device_count():
        raise RunError(
            f"LOCAL_RANK is {local}, allowed with the GPUs here: below {torch.cuda.device_count()}"
        )
    torch.cuda.set_device(local)
    return rank, world, f"cuda:{local}"


def _meet(rank: int, world: int) -> Any:
    """Return a store that process 0 keeps, when all are connected to it.

    The one that ``torchrun`` keeps still holds what the processes of an attempt before a restart
    wrote, so it only tells where the new one is; a place where nobody answers is an old one.
    """
    host, until = os.environ["MASTER_ADDR"], time.monotonic() + START.total_seconds()
    try:
        board = next(iter(dist.rendezvous("env://", timeout=START)))[0]  # type: ignore[attr-defined]
        if rank == 0:
            store = dist.TCPStore(host, 0, is_master=True, wait_for_workers=False, timeout=START)
            token = uuid.uuid4().hex
            store.set(token, "")
            board.set(PLACE, f"{store.port} {token}")
        while rank:
            port, token = board.get(PLACE).decode().split()
            try:
                store = connect(host, int(port), KNOCK)
                store.get(token)
                break
            except RuntimeError:
                if time.monotonic() > until:
                    raise
        store.set_timeout(START)
        store.set(f"here/{rank}", "")
        store.wait([f"here/{other}" for other in range(world)])
    except (RuntimeError, ValueError) as error:
        raise RunError(f"the {world} processes of the run do not find each other ({error})") from error
    return store


def connect(host: str, port: int, patience: timedelta) -> Any:
    """A connection to a store that another process keeps."""
    return dist.TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=patience)


@contextmanager
def _quiet(rank: int) -> Iterator[None]:
    """Let process 0 alone warn of what all of them meet."""
    logger = logging.getLogger(__package__.partition(".")[0])
    before = logger.level
    logger.setLevel(before if rank == 0 else logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
