"""Errors that this package raises on bad input, all of one family."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Any

LONGEST_MESSAGE, LONGEST_VALUE = 4000, 80  # characters
_MOST_FAULTS = 30  # shown of a list that may have one for each value of a file


class DPHubertError(ValueError):
    """Base of all errors that a user can cause; the message is readable and says what to change.

    Args:
        message: one line; what cannot be printed in it is escaped.
        detail: lines to show below the message, such as the end of a log.
    """

    def __init__(self, message: str = "", detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail

    def __str__(self) -> str:
        return "\n".join(map(printable, (super().__str__(), *self.detail.splitlines())))


class ConfigError(DPHubertError):
    """A configuration is invalid; the message lists all faults, ``faults`` holds them one by one."""

    faults: tuple[str, ...] = ()

    @classmethod
    def raise_for(cls, what: str, faults: Iterable[str]) -> None:
        """Raise an error if there are faults.

        Args:
            what: name of the configuration, which the message begins with.
            faults: each names the field, its value and what is allowed.
        """
        listed = tuple(faults)
        if listed:
            more = f"; and {len(listed) - _MOST_FAULTS} more" if len(listed) > _MOST_FAULTS else ""
            error = cls(f"{what}: " + "; ".join(listed[:_MOST_FAULTS]) + more)
            error.faults = listed
            raise error


class DataError(DPHubertError):
    """Audio or a manifest cannot be used."""


class CheckpointError(DPHubertError):
    """A checkpoint is damaged, incomplete, foreign or newer than this version."""


class RunError(DPHubertError):
    """A run cannot start, continue or finish."""


class ResultError(DPHubertError):
    """A result, a prediction file or a submission cannot be used."""


class ExportError(DPHubertError):
    """A model cannot be exported, or a package for it is missing."""


def warn_unregistered(error: Exception) -> None:
    """Print in one line to stderr why the upstreams could not be registered in s3prl."""
    text = printable(f"{type(error).__name__}: {error}")
    print(f"s3prl-dphubert: its upstreams are not registered ({text})", file=sys.stderr)


def printable(text: str) -> str:
    """Return a text as one line for a terminal: line ends become spaces, other control characters escapes.

    The middle of a text of more than 4,000 characters is left out.
    """
    if len(text) > LONGEST_MESSAGE:
        text = f"{text[: LONGEST_MESSAGE // 2]} … {text[-LONGEST_MESSAGE // 4 :]}"
    text = re.sub(r"\s*[\r\n]\s*", " ", text.strip())
    return "".join(
        char if char.isprintable() or char == "\N{NO-BREAK SPACE}" else _escaped(char) for char in text
    )


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def shown(value: Any) -> str:
    """Return ``repr(value)`` for a message, of which only the first 80 characters are ever made.

    A value from a file may be huge when it is written out, such as lists that hold each other many times.
    """
    text = ""
    for piece in _pieces(value):
        text += piece
        if len(text) > LONGEST_VALUE:
            return f"{text[: LONGEST_VALUE - 1]}…"
    return text


def _pieces(value: Any) -> Iterator[str]:
    """Yield the parts of a value's representation, at least one character for each level of nesting."""
    if isinstance(value, str | bytes):
        yield repr(value[:LONGEST_VALUE])
        if len(value) > LONGEST_VALUE:
            yield "…"
    elif isinstance(value, int) and value.bit_length() > 4 * LONGEST_VALUE:
        yield f"an integer of {value.bit_length()} bits"
    elif isinstance(value, Mapping):
        yield "{"
        for number, (key, inner) in enumerate(value.items()):
            yield ", " if number else ""
            yield from _pieces(key)
            yield ": "
            yield from _pieces(inner)
        yield "}"
    elif type(value) in (list, tuple) or (isinstance(value, Set) and value):
        begin, end = "[]" if isinstance(value, list) else "()" if isinstance(value, tuple) else "{}"
        yield begin
        for number, inner in enumerate(value):
            yield ", " if number else ""
            yield from _pieces(inner)
        yield f",{end}" if isinstance(value, tuple) and len(value) == 1 else end
    elif isinstance(getattr(value, "shape", None), tuple):
        yield f"an array of shape {tuple(value.shape)}"
    else:
        yield repr(value)
