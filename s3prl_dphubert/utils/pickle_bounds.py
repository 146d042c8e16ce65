"""Bounds on what a file of ``torch.save`` asks for, which are checked before anything is built."""

from __future__ import annotations

import os
import pickletools
import zipfile
from typing import Any, BinaryIO

from ..errors import CheckpointError

MOST_OPCODES = 1_000_000  # checkpoints of large models with their optimizers have some 100,000
DEEPEST = 200
MOST_LARGE = 1_000  # integers beyond 64 bits, which as keys could all have one hash
MOST_HASHED = 10_000_000  # values in all keys of mappings and members of sets, written out

_OF_PAIRS = {"DICT", "SETITEM", "SETITEMS"}
_HASHING = {*_OF_PAIRS, "ADDITEMS", "FROZENSET", "REDUCE", "NEWOBJ", "NEWOBJ_EX", "OBJ", "INST"}
_CHANGING = {"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"}
_PLAIN = {
    opcode.name
    for opcode in pickletools.opcodes
    if not opcode.stack_before
    and opcode.stack_after
    and opcode.name not in ("MARK", "GET", "BINGET", "LONG_BINGET", "EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET")
}


class _Value:
    """A value on the stack: its levels of nesting, and the number of values in it when written out."""

    __slots__ = ("depth", "size")

    def __init__(self) -> None:
        self.depth, self.size = 0, 1

    def put(self, inner: list[_Value]) -> None:
        """Put other values into this one."""
        for value in inner:
            self.depth = max(self.depth, value.depth + 1)
            self.size = min(self.size + value.size, MOST_HASHED + 1)


class _Remainder:
    """A file that is never asked for more bytes than it has left: Python allocates what it is asked for."""

    def __init__(self, file: BinaryIO) -> None:
        self.readline, self.tell, self._read = file.readline, file.tell, file.read
        begin = file.tell()
        self._end = file.seek(0, 2)
        file.seek(begin)

    def read(self, size: int) -> bytes:
        return self._read(min(size, self._end - self.tell()))


def check(file: BinaryIO) -> None:
    """Read the pickle that begins here, and leave the file at its end.

    Python's unpickler allocates a table as large as the highest index that a pickle names, and hashes keys
    without a bound on depth: nested tuples overflow its stack, and those that hold one another several times
    take for ever. So a few bytes could end the process or ask for all memory.

    Raises:
        CheckpointError: the pickle has too many opcodes, is nested too deep, names an index beyond its own
            length, or has keys that are too large.
    """
    begin, highest, large = file.tell(), 0, 0
    machine = _Machine()
    for number, (opcode, argument, _) in enumerate(pickletools.genops(_Remainder(file))):  # type: ignore[arg-type]
        if number >= MOST_OPCODES:
            raise CheckpointError(f"the pickle has more than {MOST_OPCODES:,} opcodes")
        if isinstance(argument, int):
            if opcode.name.endswith("PUT"):
                highest = max(highest, argument)
            elif argument.bit_length() > 64:
                large += 1
        machine.run(opcode, argument)
    if large > MOST_LARGE:
        raise CheckpointError(
            f"the pickle has {large:,} integers of more than 64 bits, allowed: {MOST_LARGE:,}"
        )
    if highest > file.tell() - begin:
        raise CheckpointError(f"refers to object {highest} in {file.tell() - begin} bytes")


def check_archive(archive: zipfile.ZipFile) -> None:
    """Refuse a zip that unfolds to more than its own size.

    Raises:
        CheckpointError: parts are compressed, or overlap.
    """
    members = archive.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise CheckpointError("parts of the archive are compressed, which torch never does")
    size = archive.fp.seek(0, os.SEEK_END) if archive.fp is not None else 0
    if sum(member.file_size for member in members) > size:
        raise CheckpointError("parts of the archive overlap")


class _Machine:
    """The stack and the memo of an unpickler, with sizes in the place of values."""

    def __init__(self) -> None:
        self.stack: list[_Value | None] = []  # None is a mark
        self.memo: dict[int, _Value] = {}
        self.hashed = 0
        self.plain = _Value()  # all numbers, strings and None

    def run(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        """Do what an opcode does to the stack."""
        name = opcode.name
        if name in _PLAIN:
            self.stack.append(self.plain)
        elif name == "MARK":
            self.stack.append(None)
        elif name.endswith("GET"):
            self.stack.append(self.memo[argument])
        elif name.endswith("PUT"):
            self.memo[argument] = self._top()
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self._top()
        elif name == "DUP":
            self.stack.append(self._top())
        else:
            self._build(opcode)

    def _build(self, opcode: pickletools.OpcodeInfo) -> None:
        """Put the arguments of an opcode into a new value, or into the one that it changes."""
        name, inner = opcode.name, self._pop(opcode)
        if not opcode.stack_after:
            return
        if name in _HASHING:
            self.hashed += sum(value.size for value in (inner[::2] if name in _OF_PAIRS else inner))
            if self.hashed > MOST_HASHED:
                raise CheckpointError(f"its keys hold more than {MOST_HASHED:,} values")
        value = self._pop_one() if name in _CHANGING else _Value()
        value.put(inner)
        if value.depth > DEEPEST:
            raise CheckpointError(f"damaged, or nested deeper than {DEEPEST} levels")
        self.stack.append(value)

    def _pop(self, opcode: pickletools.OpcodeInfo) -> list[_Value]:
        """Remove the arguments of an opcode: those above the last mark, or a fixed number."""
        before = opcode.stack_before
        popped: list[_Value] = []
        if pickletools.markobject in before or (
            opcode.name == "POP" and self.stack and self.stack[-1] is None
        ):
            while (value := self.stack.pop()) is not None:
                popped.append(value)
        else:
            popped = [self._pop_one() for _ in range(len(before) - (opcode.name in _CHANGING))]
        return popped[::-1]

    def _pop_one(self) -> _Value:
        value = self.stack.pop()
        if value is None:
            raise CheckpointError("damaged: a mark in the place of a value")
        return value

    def _top(self) -> _Value:
        if not self.stack or (value := self.stack[-1]) is None:
            raise CheckpointError("damaged: an empty stack")
        return value
