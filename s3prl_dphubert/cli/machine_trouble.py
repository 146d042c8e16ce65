"""Trouble of the machine in one line: disks, names, memory, and processes that are gone."""

from __future__ import annotations

import re

LIBRARY_ERRORS = ("RuntimeError", "SafetensorError", "MemoryError")
"""Names of the errors, those of libraries that are not imported here among them."""

LESS_MEMORY = "halve data.batch.seconds_per_batch and double accumulate"
MEANINGS = {
    r"DataLoader worker .*(killed|exited)": (
        "a process that reads audio was killed, perhaps for want of memory; set num_workers lower"
    ),
    r"DataLoader timed out": "no audio could be read for too long; a disk or a network may be stuck",
    r"CUDA out of memory": f"the GPU is out of memory; {LESS_MEMORY}",
    r"can't allocate memory|std::bad_alloc": f"out of memory; {LESS_MEMORY}",
    r"determine home directory": "this user has no home folder; write paths without ~",
    r"inline_container|unexpected pos \d+ vs|basic_ios::clear|I/O error|No space left": (
        "a file cannot be written; the disk may be full"
    ),
}
"""Pattern in the message of a library -> what it means."""


def describe(error: BaseException) -> str | None:
    """Return what happened to the machine, or ``None`` if the error is of another kind."""
    if isinstance(error, UnicodeEncodeError):
        encoding = error.encoding
        return f"{error.object[:200]!r} cannot be encoded as {encoding}, allowed: names in {encoding}"
    if isinstance(error, OSError):
        name = "" if error.filename is None else f"{_shown(str(error.filename))}: "
        return f"{name}{error.strerror or error or type(error).__name__}"
    if not any(kind.__name__ in LIBRARY_ERRORS for kind in type(error).__mro__):
        return None
    cause: BaseException | None = error
    for _ in range(5):  # of the system, which the library has turned into its own
        cause = cause and (cause.__cause__ or cause.__context__)
        if isinstance(cause, OSError):
            return describe(cause)
    first_line = str(error).partition("\n")[0][:200]
    for pattern, meaning in MEANINGS.items():
        if re.search(pattern, str(error), re.DOTALL):
            return f"{meaning} ({first_line})"
    return f"out of memory ({first_line})" if isinstance(error, MemoryError) else None


def _shown(name: str) -> str:
    text = name if name.isprintable() else repr(name)[1:-1]
    return text if len(text) <= 200 else f"{text[:200]}…"
