"""Read pickles of other projects: tensors and plain containers, without running any code.

fairseq and s3prl pickle configuration objects into their checkpoints, which ``weights_only`` loading
refuses. Here every class and function that is not on a short list becomes a :class:`Stub`, which records
how the pickle uses it and does nothing; :func:`plain` turns stubs into plain values.
"""

from __future__ import annotations

import io
import math
import os
import pickle
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from ..errors import CheckpointError, shown
from ..utils import pickle_bounds
from ..utils.readers import open_zip
from .pickle_stubs import Stub, plain

__all__ = ["Stub", "plain", "read_foreign_pickle"]

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # first words of torch.save's format before zip
DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "UntypedStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_SMALL = 1 << 16  # numbers of an expanded tensor, or bytes of them all, that always are allowed
_MOST_AXES, _MOST_CLASSES = 64, 10_000
_MOST_VIEWS = 4  # bytes of tensors for each byte of their storages; parameters share memory now and then
_CONTAINERS: dict[tuple[str, str], type] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch", "Size"): tuple,
    **{(module, kind.__name__): kind for module in ("builtins", "__builtin__") for kind in (set, frozenset)},
}


def read_foreign_pickle(path: str | Path) -> Any:
    """Read a file of ``torch.save`` (zip or the format before it) or a plain pickle; runs no code.

    Nothing is built that takes much more memory or time than the file is large: :func:`.pickle_bounds.check`
    bounds what the pickle asks for, and the tensors may not add up to much more than their storages.

    Returns:
        The content of the file: tensors on the CPU, dicts, lists, tuples, sets, numbers and strings, and
        a :class:`Stub` for everything else; :func:`plain` turns stubs into plain values.

    Raises:
        CheckpointError: the file is missing, damaged, of an unsupported kind (TorchScript, tar), or asks for
            much more than it holds.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(262)
            file.seek(0)
            if head.startswith(b"PK"):
                return _read_zip(file)
            if head[257:262] == b"ustar":
                raise CheckpointError("tar files (torch before 0.1.10) are not supported")
            return _read_old(file)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from error
    except CheckpointError as error:
        if error.__cause__ is None or isinstance(error.__cause__, OSError):
            raise CheckpointError(f"{path}: {error}") from error
        raise CheckpointError(f"{path}: damaged, or not written by torch.save ({error})") from error
    except Exception as error:  # a damaged pickle may provoke any
        reason = f"{type(error).__name__}: {str(error)[:200]}"
        raise CheckpointError(f"{path}: damaged, or not written by torch.save ({reason})") from error


class _Storage:
    """Memory that tensors of the file are views of; filled when it has been read."""

    __slots__ = ("dtype", "size", "values")

    def __init__(self, dtype: torch.dtype, size: int) -> None:
        self.dtype, self.size = dtype, size
        self.values: Tensor | None = None

    def fill(self, data: bytes) -> None:
        """Set the values from raw bytes."""
        if len(data) != self.size * self.dtype.itemsize:
            raise CheckpointError(f"a storage of {self.size} {self.dtype} has {len(data)} bytes")
        buffer = bytearray(data)  # torch needs writable memory
        self.values = torch.frombuffer(buffer, dtype=self.dtype) if data else torch.empty(0, dtype=self.dtype)


class _View:
    """A tensor as the pickle describes it; without a __dict__, so that a pickle cannot set its state."""

    __slots__ = ("offset", "size", "storage", "stride")

    def __init__(self, storage: Any, offset: Any, size: Any, stride: Any) -> None:
        self.storage, self.offset, self.size, self.stride = storage, offset, size, stride

    def tensor(self) -> Tensor:
        """Return the tensor, if it lies within its storage."""
        storage, size, stride = self.storage, self.size, self.stride
        numbers = (self.offset, *size, *stride)
        if not isinstance(storage, _Storage) or storage.values is None or len(size) != len(stride):
            raise CheckpointError("a tensor has no storage")
        if any(type(n) is not int or n < 0 for n in numbers) or len(size) > _MOST_AXES:
            raise CheckpointError(f"a tensor has offset, shape and strides {shown(numbers)}")
        last = self.offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if all(size) and last >= storage.size:
            raise CheckpointError(f"a tensor reaches {last}, its storage has {storage.size}")
        if math.prod(size) > max(storage.size, _SMALL):
            raise CheckpointError(f"a tensor of shape {shown(size)} has {storage.size} numbers in the file")
        return torch.as_strided(storage.values, size, stride, self.offset if all(size) else 0)


class _Unpickler(pickle.Unpickler):
    """Unpickler that resolves only the names of plain containers and of the parts of tensors."""

    def __init__(self, data: bytes, persistent: Callable[[Any], Any] | None = None) -> None:
        super().__init__(io.BytesIO(data), encoding="utf-8", errors="surrogateescape")
        self.persistent = persistent
        self.stubs: dict[tuple[str, str], type[Stub]] = {}
        # New functions for every file, since a pickle can set attributes on what it obtains.
        self.functions: dict[tuple[str, str], Callable[..., Any]] = {
            ("torch._utils", "_rebuild_tensor"): lambda *args: _View(*args),
            ("torch._utils", "_rebuild_tensor_v2"): lambda *args: _View(*args[:4]),
            ("torch._utils", "_rebuild_parameter"): lambda data, *args: data,
        }

    def find_class(self, module: str, name: str) -> Any:
        """Return a container, a function that makes tensors, or a stub."""
        key = (module, name)
        if key in _CONTAINERS:
            return _CONTAINERS[key]
        if key in self.functions:
            return self.functions[key]
        if key not in self.stubs:
            if len(self.stubs) >= _MOST_CLASSES:
                raise CheckpointError(f"the pickle names more than {_MOST_CLASSES:,} classes")
            self.stubs[key] = type("Stub", (Stub,), {"module": module, "name": name})
        return self.stubs[key]

    def persistent_load(self, pid: Any) -> Any:
        """Return a storage."""
        if self.persistent is None:
            raise CheckpointError("a plain pickle refers to data outside of it")
        return self.persistent(pid)


def _storage(pid: Any) -> tuple[str, _Storage]:
    """Return key and empty storage for a persistent id: ``("storage", class, key, device, size[, view])``."""
    kind, stub, key, _, size = pid[:5]
    if kind != "storage" or any(part is not None for part in pid[5:]):
        raise CheckpointError(f"refers to {shown(kind)}, expected a whole storage")
    name = getattr(stub, "name", stub)
    if name not in DTYPES:
        raise CheckpointError(f"unknown storage type {name}, allowed: {', '.join(DTYPES)}")
    if type(key) is not str or type(size) is not int or size < 0:
        raise CheckpointError(f"storage {shown(key)} has {shown(size)} numbers")
    return key, _Storage(DTYPES[name], size)


def _read_zip(file: BinaryIO) -> Any:
    with open_zip(file, CheckpointError, "the archive") as archive:
        names = archive.namelist()
        roots = [name.removesuffix("data.pkl") for name in names if f"/{name}".endswith("/data.pkl")]
        if len(roots) != 1:
            raise CheckpointError(f"{len(roots)} data.pkl in the archive; not a file of torch.save")
        root, storages = roots[0], dict[str, _Storage]()
        if f"{root}constants.pkl" in names:
            raise CheckpointError("a TorchScript archive, which is code; save its state_dict instead")
        pickle_bounds.check_archive(archive)
        if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != sys.byteorder.encode():
            raise CheckpointError("the numbers have another byte order than this machine")

        def persistent(pid: Any) -> _Storage:
            key, storage = _storage(pid)
            if key not in storages:
                storage.fill(archive.read(f"{root}data/{key}"))
                storages[key] = storage
            return storages[key]

        data = io.BytesIO(archive.read(f"{root}data.pkl"))
        return _finish(_Unpickler(_one_pickle(data), persistent).load(), storages)


def _read_old(file: BinaryIO) -> Any:
    """Read one pickle, or torch's old format: magic, version, byte order, object, keys, storages."""
    first = _Unpickler(_one_pickle(file)).load()
    if first != MAGIC:
        return _finish(first, {})
    version, system = (_Unpickler(_one_pickle(file)).load() for _ in range(2))
    if version != PROTOCOL or system.get("little_endian") is not (sys.byteorder == "little"):
        raise CheckpointError(f"version {shown(version)} on a machine {shown(system)} is not supported")
    storages: dict[str, _Storage] = {}

    def persistent(pid: Any) -> _Storage:
        key, storage = _storage(pid)
        return storages.setdefault(key, storage)

    tree = _Unpickler(_one_pickle(file), persistent).load()
    for key in _Unpickler(_one_pickle(file)).load():
        size = int.from_bytes(file.read(8), sys.byteorder, signed=True)
        if key not in storages or size != storages[key].size:
            raise CheckpointError(f"storage {shown(key)} is unexpected or has the wrong size")
        if size * storages[key].dtype.itemsize > os.fstat(file.fileno()).st_size - file.tell():
            raise CheckpointError(f"storage {shown(key)} of {size} numbers is cut off")
        storages[key].fill(file.read(size * storages[key].dtype.itemsize))
    return _finish(tree, storages)


def _one_pickle(file: BinaryIO) -> bytes:
    """Read the bytes of the pickle that begins here, and leave the file at its end."""
    begin = file.tell()
    pickle_bounds.check(file)
    end = file.tell()
    file.seek(begin)
    return file.read(end - begin)


def _finish(tree: Any, storages: Mapping[str, _Storage]) -> Any:
    """Replace descriptions of tensors in the content of a file by the tensors."""
    tensors: list[Tensor] = []
    finished = _replace_views(tree, {}, tensors)
    memory = sum(storage.size * storage.dtype.itemsize for storage in storages.values())
    total = sum(tensor.nbytes for tensor in tensors)
    if total > _MOST_VIEWS * memory + _SMALL:
        raise CheckpointError(f"tensors of {total:,} bytes share {memory:,} bytes of memory")
    return finished


def _replace_views(value: Any, done: dict[int, tuple[Any, Any]], tensors: list[Tensor]) -> Any:
    """Replace descriptions of tensors by the tensors, and list these; containers keep their identity."""
    if not isinstance(value, dict | list | tuple | Stub | _View | _Storage):
        return value
    if id(value) in done:
        return done[id(value)][1]
    done[id(value)] = value, value  # kept alive, so that its id is not reused
    if isinstance(value, dict):
        for key in list(value):
            value[key] = _replace_views(value[key], done, tensors)
    elif isinstance(value, list):
        value[:] = [_replace_views(item, done, tensors) for item in value]
    elif isinstance(value, Stub):
        parts = (value.args, value.kwargs, value.state, value.items)
        value.args, value.kwargs, value.state, value.items = (
            _replace_views(part, done, tensors) for part in parts
        )
    else:
        result = (
            tuple(_replace_views(item, done, tensors) for item in value)
            if isinstance(value, tuple)
            else value.tensor()
            if isinstance(value, _View)
            else value.values
        )
        done[id(value)] = value, result
        if isinstance(result, Tensor) and isinstance(value, _View):
            tensors.append(result)
    return done[id(value)][1]
