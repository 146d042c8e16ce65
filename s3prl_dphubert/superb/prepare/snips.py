"""Audio SNIPS: the slots of SF."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from ...errors import DataError
from ...utils.files import write_text
from .corpus_files import config_value, read_lines, require_folder
from .step import Config, PreparationStep

SOURCE = "the preprocessed Audio SNIPS that s3prl's docs/superb.md links to"
TEXTS = "all.iob.snips.txt"
NO_SLOT = "O"


def slots(data: Path, out: Path, config: Config) -> None:
    """Write ``slots.txt``: ``O`` and the slots, as s3prl reads it, without an end of the last line.

    The corpus's own ``slots.txt`` gives the order, so that checkpoints of s3prl fit; without it slots are
    sorted by frequency. Each split must have audio of its speakers.
    """
    root = require_folder(Path(config_value(config, "corpus", "path")), "Audio SNIPS", SOURCE)
    counts = _count_slots(root)
    names = _listed_slots(root) or sorted(counts, key=lambda slot: (-counts[slot], slot))
    if missing := sorted(counts.keys() - set(names)):
        raise DataError(f"{root / 'slots.txt'}: lacks {', '.join(missing)}, which {TEXTS} has")
    for split in ("train", "dev", "test"):
        for name in config_value(config, "corpus", split):
            _check_speakers(root / name, config_value(config, "corpus", f"{name}_speakers"))
    write_text(out / "slots.txt", "\n".join([NO_SLOT, *names]))


def _count_slots(root: Path) -> Counter[str]:
    """Return the number of words of each slot."""
    counts: Counter[str] = Counter()
    for line in read_lines(root / TEXTS, "words and slots of Audio SNIPS", SOURCE):
        name, _, rest = line.strip().partition(" ")
        words, tab, tags = rest.partition("\t")
        if not tab or len(words.split()) != len(tags.split()):
            raise DataError(f"{root / TEXTS}: {name} has not a tag for each word")
        counts.update(tags.split()[1:-1])
    del counts[NO_SLOT]
    if not counts:
        raise DataError(f"{root / TEXTS}: no word has a slot")
    return counts


def _listed_slots(root: Path) -> list[str]:
    """Return the slots of the corpus's own table without ``O``; none if there is no table."""
    table = root / "slots.txt"
    names = read_lines(table, "names of slots", SOURCE) if table.is_file() else []
    return [name.strip() for name in names if name.strip() != NO_SLOT]


def _check_speakers(folder: Path, names: list[str]) -> None:
    require_folder(folder, "audio of Audio SNIPS", SOURCE)
    for name in names:
        if next(folder.glob(f"{name}-*.wav"), None) is None:
            raise DataError(f"{folder}: holds no audio of {name} ({name}-….wav); take {SOURCE}")


def _inputs(data: Path, config: Config) -> list[Path | str]:
    corpus = config_value(config, "corpus")
    root = Path(config_value(config, "corpus", "path"))
    speakers = {key: corpus[key] for key in sorted(corpus) if key.endswith("_speakers")}
    return [root / TEXTS, root / "slots.txt", root, str(speakers)]


SLOTS = PreparationStep("snips_slots", slots, _inputs, quick=True)
