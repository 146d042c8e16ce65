"""Audio SNIPS: the slots of SF."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from ...errors import DataError
from ...utils.files import write_text
from .paths import folder, text, value
from .step import Config, Step

SOURCE = "the preprocessed Audio SNIPS that s3prl's docs/superb.md links to"
TEXTS = "all.iob.snips.txt"
NO_SLOT = "O"


def slots(data: Path, out: Path, config: Config) -> None:
    """Write ``slots.txt``: ``O`` and the slots, as s3prl reads it, without an end of the last line.

    The corpus's own ``slots.txt`` gives the order, so that checkpoints of s3prl fit; without it the
    slots stand by how often they occur. Each split must have audio of its speakers.
    """
    root = folder(Path(value(config, "corpus", "path")), "Audio SNIPS", SOURCE)
    used = _used(root)
    known = _known(root) or sorted(used, key=lambda slot: (-used[slot], slot))
    if missing := sorted(used.keys() - set(known)):
        raise DataError(f"{root / 'slots.txt'}: lacks {', '.join(missing)}, which {TEXTS} has")
    for split in ("train", "dev", "test"):
        for name in value(config, "corpus", split):
            _check_speakers(root / name, value(config, "corpus", f"{name}_speakers"))
    write_text(out / "slots.txt", "\n".join([NO_SLOT, *known]))


def _used(root: Path) -> Counter[str]:
    """Slot -> how many words bear it."""
    counts: Counter[str] = Counter()
    for line in text(root / TEXTS, "words and slots of Audio SNIPS", SOURCE):
        name, _, said = line.strip().partition(" ")
        words, tab, tags = said.partition("\t")
        if not tab or len(words.split()) != len(tags.split()):
            raise DataError(f"{root / TEXTS}: {name} has not a tag for each word")
        counts.update(tags.split()[1:-1])
    del counts[NO_SLOT]
    if not counts:
        raise DataError(f"{root / TEXTS}: no word has a slot")
    return counts


def _known(root: Path) -> list[str]:
    """The slots of the corpus's own table, without ``O``."""
    table = root / "slots.txt"
    names = text(table, "names of slots", SOURCE) if table.is_file() else []
    return [name.strip() for name in names if name.strip() != NO_SLOT]


def _check_speakers(place: Path, names: list[str]) -> None:
    folder(place, "audio of Audio SNIPS", SOURCE)
    for name in names:
        if next(place.glob(f"{name}-*.wav"), None) is None:
            raise DataError(f"{place}: holds no audio of {name} ({name}-….wav); take {SOURCE}")


def _inputs(data: Path, config: Config) -> list[Path | str]:
    corpus = value(config, "corpus")
    root = Path(value(config, "corpus", "path"))
    chosen = {key: corpus[key] for key in sorted(corpus) if key.endswith("_speakers")}
    return [root / TEXTS, root / "slots.txt", root, str(chosen)]


SLOTS = Step("snips_slots", slots, _inputs)
