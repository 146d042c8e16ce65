"""Processes of one run: joining, collective operations, and errors that reach every process.

``torchrun`` starts the processes and describes them in RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and
MASTER_PORT. All have to see the same files: process 0 writes, the others read.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import Store

from ..errors import RunError
from .heartbeat import Heartbeat

START_TIMEOUT = timedelta(minutes=10)  # for all processes to appear: imports from a slow disk take long
# A long validation of process 0 must not exceed this; dead processes are for the heartbeat to detect.
COLLECTIVE_TIMEOUT = timedelta(days=7)
CONNECT_TIMEOUT = timedelta(seconds=5)  # for an answer from a store that exists
BUCKET = 8 * 2**20  # elements of one collective operation
AnyTensor = TypeVar("AnyTensor", bound=Tensor)
ADDRESS, FAILURE = "place", "failed"  # keys of the stores


class Processes:
    """The processes of a run, as one of them sees them. A run of one process communicates with nobody.

    All processes have to call the same methods in the same order.

    Args:
        rank: number of this process, from 0.
        world: number of processes.
        device: device of this process.
        store: key-value store that all processes share, if there are several.
    """

    def __init__(
        self, rank: int = 0, world: int = 1, device: str = "cpu", store: Store | None = None
    ) -> None:
        self.rank, self.world, self.device, self.store = rank, world, torch.device(device), store

    @property
    def main(self) -> bool:
        """True in the process that writes."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait until all processes have come here, however long that takes."""
        if self.world > 1:
            with self._explaining_failures():
                dist.all_reduce(torch.ones(()))

    def broadcast(self, value: Any) -> Any:
        """Return process 0's value, of plain Python, in all processes, by way of JSON, not of a pickle."""
        if self.world == 1:
            return value
        data = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        length = torch.tensor([len(data)])
        with self._explaining_failures():
            dist.broadcast(length, src=0)
            data = data if self.main else torch.empty(int(length), dtype=torch.uint8)
            dist.broadcast(data, src=0)
        return json.loads(data.numpy().tobytes())

    def mean(self, scalars: dict[str, float]) -> dict[str, float]:
        """Return the mean over all processes of each scalar; all have the same names."""
        if self.world == 1:
            return scalars
        values = torch.tensor(list(scalars.values()), dtype=torch.float64)
        with self._explaining_failures():
            dist.all_reduce(values)
        return dict(zip(scalars, (values / self.world).tolist(), strict=True))

    def sum(self, tensors: list[Tensor]) -> None:
        """Replace each tensor by its sum over all processes."""
        self._in_place(dist.all_reduce, tensors)

    def start_sum(self, tensor: Tensor) -> Any:
        """Start to replace a tensor by its sum over all processes; give the result to :meth:`finish_sum`."""
        with self._explaining_failures():
            return dist.all_reduce(tensor, async_op=True)

    def finish_sum(self, work: Any) -> None:
        """Let what follows wait for a sum: the host on a CPU, the device's stream on a GPU."""
        with self._explaining_failures():
            work.wait()

    def broadcast_module(self, module: nn.Module) -> None:
        """Copy the parameters and buffers of process 0 to all processes."""
        self._in_place(partial(dist.broadcast, src=0), list(module.state_dict().values()))

    def _in_place(self, operation: Callable[[Tensor], Any], tensors: list[Tensor]) -> None:
        """Apply a collective operation to many tensors, a bucket of them at a time."""
        if self.world == 1:
            return
        for bucket in buckets(tensors):
            flat = torch.cat([tensor.detach().reshape(-1) for tensor in bucket])
            with self._explaining_failures():
                operation(flat)
            parts = flat.split([tensor.numel() for tensor in bucket])
            for tensor, part in zip(bucket, parts, strict=True):
                tensor.detach().copy_(part.view_as(tensor))

    def fail(self, error: BaseException) -> None:
        """Tell the other ranks why this process is exiting."""
        message = f"process {self.rank} stopped: {str(error) or type(error).__name__}"
        try:
            if self.store is not None:
                self.store.compare_set(FAILURE, "", message)  # only the first failure is stored
        except RuntimeError:
            logging.getLogger(__name__).debug("the store is gone; not reported: %s", message)

    @contextmanager
    def _explaining_failures(self) -> Iterator[None]:
        """Turn a broken connection into an error that names its cause, if another process reported one."""
        try:
            yield
        except RuntimeError as error:
            reason = self._reported_failure() or f"lost another process of the run ({error})"
            raise RunError(reason) from error

    def _reported_failure(self) -> str:
        try:
            if self.store is not None and self.store.check([FAILURE]):
                return self.store.get(FAILURE).decode()
        except RuntimeError:  # process 0, which hosts the store, is the one that is gone
            pass
        return ""


def buckets(tensors: Iterable[AnyTensor]) -> Iterator[list[AnyTensor]]:
    """Divide tensors, in their order, into lists of at most :data:`BUCKET` elements."""
    bucket: list[AnyTensor] = []
    for tensor in tensors:
        if bucket and sum(t.numel() for t in bucket) + tensor.numel() > BUCKET:
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


@contextmanager
def join(device: str) -> Iterator[Processes]:
    """Join the other processes of the run, if the environment describes any, and leave together.

    A process that dies or falls silent ends all others within a minute, whatever they wait for.

    Args:
        device: ``cpu``, ``cuda`` (each process takes the GPU of its LOCAL_RANK), for a single process
            ``cuda:N``, or ``auto`` for ``cuda`` where there is a GPU, else ``cpu``.

    Raises:
        RunError: there is no GPU, the environment is incomplete, ``device`` is one GPU for several
            processes, not all processes appear, or one is lost on the way.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device != "cpu" and not torch.cuda.is_available():
        raise RunError(
            f"device is {device!r}, and torch sees no GPU here; allowed: cpu (compress: --set device=cpu)"
        )
    if os.environ.get("WORLD_SIZE", "1") == "1":
        _, _, number = device.partition(":")
        if number and int(number) >= torch.cuda.device_count():
            last = torch.cuda.device_count() - 1
            raise RunError(f"device is {device!r}, allowed with the GPUs here: cuda:0 to cuda:{last}")
        yield Processes(device=device)
        return
    rank, world, device = _own_place(device)
    store = _shared_store(rank, world)
    heartbeat = Heartbeat(connect(store.host, store.port, CONNECT_TIMEOUT), rank, world)
    processes = Processes(rank, world, device, store)
    backend = "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl"
    with _errors_only(rank):
        try:
            with processes._explaining_failures():
                dist.init_process_group(
                    backend,
                    store=dist.PrefixStore("group", store),
                    rank=rank,
                    world_size=world,
                    timeout=COLLECTIVE_TIMEOUT,
                )
            yield processes
            processes.barrier()  # a process that has finished must not be taken for a dead one
        except BaseException as error:
            processes.fail(error)
            if device == "cpu" and dist.is_initialized():
                dist.destroy_process_group()  # closes the connections; with NCCL it could hang
            raise
        finally:
            heartbeat.stop()
        processes.barrier()
        dist.destroy_process_group()


def _own_place(device: str) -> tuple[int, int, str]:
    """Return rank, world and device of this process."""
    names = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    missing = [name for name in names if not os.environ.get(name)]
    if missing:
        raise RunError(f"WORLD_SIZE is set, but not {', '.join(missing)}; torchrun sets them all")
    if dist.is_initialized():
        raise RunError("torch.distributed is already initialized; a run makes its own process group")
    try:
        rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        local = int(os.environ.get("LOCAL_RANK", rank))
    except ValueError as error:
        raise RunError(f"RANK, LOCAL_RANK and WORLD_SIZE have to be integers ({error})") from error
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


def _shared_store(rank: int, world: int) -> Any:
    """Return a new store hosted by process 0, once all processes are connected to it.

    The store of ``torchrun`` still holds what the processes of an attempt before a restart wrote. It is
    therefore used only to announce the address of the new one.
    """
    host = os.environ["MASTER_ADDR"]
    try:
        announcements = next(iter(dist.rendezvous("env://", timeout=START_TIMEOUT)))[0]  # type: ignore[attr-defined]
        store = _host_store(host, announcements) if rank == 0 else _find_store(host, announcements)
        store.set_timeout(START_TIMEOUT)
        store.set(f"here/{rank}", "")
        store.wait([f"here/{other}" for other in range(world)])
    except (RuntimeError, ValueError, OSError) as error:
        raise RunError(f"the {world} processes of the run do not find each other ({error})") from error
    return store


def _host_store(host: str, announcements: Any) -> Any:
    """Open a store on a free port, and announce the port with a token that the store holds."""
    listener = _listen_on_loopback(host)
    store = dist.TCPStore(
        host,
        0 if listener is None else listener.getsockname()[1],
        is_master=True,
        wait_for_workers=False,
        timeout=START_TIMEOUT,
        master_listen_fd=None if listener is None else listener.detach(),
    )
    token = uuid.uuid4().hex
    store.set(token, "")
    announcements.set(ADDRESS, f"{store.port} {token}")
    return store


def _listen_on_loopback(host: str) -> socket.socket | None:
    """Return a socket for a store on this machine only, since torch's own listens on every interface.

    Returns:
        ``None`` if other machines have to reach the store.
    """
    family, _, _, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
    if not ipaddress.ip_address(address[0]).is_loopback:
        return None
    return socket.create_server(address[:2], family=family, backlog=1024)


def _find_store(host: str, announcements: Any) -> Any:
    """Connect to the announced store; one that does not answer with its token is of an earlier attempt."""
    deadline = time.monotonic() + START_TIMEOUT.total_seconds()
    while True:
        port, token = announcements.get(ADDRESS).decode().split()
        try:
            store = connect(host, int(port), CONNECT_TIMEOUT)
            store.get(token)
            return store
        except RuntimeError:
            if time.monotonic() > deadline:
                raise


def connect(host: str, port: int, timeout: timedelta) -> Any:
    """Connect to a store that another process hosts."""
    return dist.TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=timeout)


@contextmanager
def _errors_only(rank: int) -> Iterator[None]:
    """Silence the package's warnings in all processes but the first, which would repeat them."""
    logger = logging.getLogger(__package__.partition(".")[0])
    level = logger.level
    logger.setLevel(level if rank == 0 else logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
