"""Parts of a page as plain values, which the template turns into HTML and escapes."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from matplotlib.figure import Figure

from ..utils.plot_style import svg


@dataclass(frozen=True)
class Tile:
    """A number to be seen at a glance.

    Attributes:
        label: of the number.
        value: the number with its unit.
        note: in small letters below.
    """

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: its text.
        note: in small letters behind it.
        share: length of a bar behind the text, from 0 to 1; none without it.
    """

    text: str
    note: str = ""
    share: float | None = None


@dataclass(frozen=True)
class PageTable:
    """A table; the first cell of a row names it.

    Attributes:
        head: cells above.
        rows: cells of each row, as many as in ``head``.
        strong: numbers of the rows in bold letters.
        is_text: cells are texts rather than numbers, and stand left.
    """

    kind: ClassVar[str] = "table"
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    strong: frozenset[int] = frozenset()
    is_text: bool = False


@dataclass(frozen=True)
class Picture:
    """An embedded picture.

    Attributes:
        alternative: text for those who do not see it.
        source: data URI.
        title: above it.
    """

    kind: ClassVar[str] = "picture"
    alternative: str
    source: str
    title: str = ""

    @classmethod
    def of(cls, figure: Figure, alternative: str, title: str = "") -> Picture:
        """Embed a figure as SVG."""
        content = base64.b64encode(svg(figure)).decode("ascii")
        return cls(alternative, f"data:image/svg+xml;base64,{content}", title)


@dataclass(frozen=True)
class Gallery:
    """Pictures beside each other, as far as there is room.

    Attributes:
        pictures: the pictures.
    """

    kind: ClassVar[str] = "gallery"
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Paragraph:
    """A sentence or more.

    Attributes:
        text: the sentences.
        is_missing: they name what is not there.
    """

    kind: ClassVar[str] = "paragraph"
    text: str
    is_missing: bool = False


@dataclass(frozen=True)
class Listing:
    """Lines of a shell or of a file.

    Attributes:
        text: the lines.
        title: above them; what has one is folded away.
    """

    kind: ClassVar[str] = "listing"
    text: str
    title: str = ""


@dataclass(frozen=True)
class Folded:
    """A table that a click unfolds.

    Attributes:
        title: line to click on.
        table: the table.
    """

    kind: ClassVar[str] = "folded"
    title: str
    table: PageTable


Block = PageTable | Picture | Gallery | Paragraph | Listing | Folded


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes:
        anchor: end of the link to it.
        title: its heading.
        blocks: its content.
    """

    anchor: str
    title: str
    blocks: Sequence[Block]


def missing(text: str) -> Paragraph:
    """Return the paragraph that names what is not there."""
    return Paragraph(text, is_missing=True)


def decimal(number: float, digits: int) -> str:
    """Write a number with so many digits behind the point, and a minus sign that is no hyphen."""
    return f"{number:.{digits}f}".replace("-", "\N{MINUS SIGN}")


def amount(number: float) -> str:
    """Write a count with three digits and its unit, as 1.48 M."""
    for unit, name in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(number) >= unit:
            return f"{number / unit:#.3g}".rstrip(".") + name
    return f"{number:g}"
