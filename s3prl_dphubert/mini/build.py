"""Build mini-SUPERB: a folder that is to the recipes what the folder of all official corpora is."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ..compression.run_directory import sweep
from ..constants import SAMPLE_RATE
from ..data.manifest import Entry, Manifest
from ..errors import ConfigError, RunError
from ..utils.files import write_text
from ..utils.hashing import sha256_file
from ..utils.locking import folder_lock
from . import corpus, inventory, layout
from .corpora import (
    asr_corpus,
    er_corpus,
    ic_corpus,
    ks_corpus,
    qbe_corpus,
    sd_corpus,
    se_ss_corpus,
    sf_corpus,
    sid_asv_corpus,
)
from .layout import Plan
from .sources import packages
from .sources.recordings import SOURCES
from .utterance import Material, load
from .voices import DEV, ROLES, TEST

TABLES = Path(__file__).parent
MADE = ".made"  # says of what and by which rules a folder was built
VERSION = 1  # raised when the same recordings are to be laid out otherwise
SHORTEST = 0.1  # seconds of a clip to train on without labels


@dataclass(frozen=True)
class Layout:
    """What one or more tasks read.

    Attributes:
        name: of its table in ``manifests``.
        tasks: names of the tasks.
        plan: lists its files.
    """

    name: str
    tasks: tuple[str, ...]
    plan: Callable[[Material], Plan]


LAYOUTS: tuple[Layout, ...] = (
    Layout("librispeech", ("PR", "ASR"), asr_corpus.plan),
    Layout("speech_commands", ("KS",), ks_corpus.plan),
    Layout("quesst", ("QbE",), qbe_corpus.plan),
    Layout("voxceleb", ("SID",), sid_asv_corpus.identification),
    Layout("verification", ("ASV",), sid_asv_corpus.verification),
    Layout("conversations", ("SD",), sd_corpus.plan),
    Layout("iemocap", ("ER",), lambda _: er_corpus.plan()),
    Layout("fluent_commands", ("IC",), lambda _: ic_corpus.plan()),
    Layout("snips", ("SF",), lambda _: sf_corpus.plan()),
    Layout("voicebank", ("SE",), se_ss_corpus.enhancement),
    Layout("libri2mix", ("SS",), se_ss_corpus.separation),
)

SYNTHESISED = ("ER", "IC", "SF")
"""Tasks that need no recordings."""

SAME_PERSON = ("asterisk-core-sounds-en-g722", "asterisk-core-sounds-es-g722")
"""Packages spoken by the test voice out of domain."""


def chosen(tasks: Iterable[str]) -> list[Layout]:
    """The layouts of tasks, whatever their case; ``all`` for every one.

    Raises:
        ConfigError: a task has none.
    """
    wanted = {task.strip().upper() for task in tasks}
    known = {task.upper(): one for one in LAYOUTS for task in one.tasks}
    ConfigError.raise_for(
        "--tasks",
        (
            f"{task} is not there, allowed: all, {', '.join(sorted(known)).lower()}"
            for task in sorted(wanted - {"ALL"} - known.keys())
        ),
    )
    return [one for one in LAYOUTS if "ALL" in wanted or wanted & {task.upper() for task in one.tasks}]


def build(
    out: Path,
    tasks: Iterable[str] = ("all",),
    debs: Path | None = None,
    unlabelled: bool = False,
    tables: Path = TABLES,
) -> None:
    """Fetch, decode and lay out what is not there yet, then write ``README.md`` and ``splits.json``.

    A build that was killed goes on where it was: packages, clips and layouts that are whole stay.

    Args:
        out: folder of the build, new or begun before.
        tasks: names of tasks.
        debs: a folder with the packages; nothing is downloaded then.
        unlabelled: whether to decode all packages and to list what may be trained on without labels.
        tables: folder with ``packages.tsv``, ``alignments.tsv.gz`` and ``lexicon.tsv.gz``.

    Raises:
        DPHubertError: a package is missing or damaged, a task unknown, another process at work.
    """
    layouts = chosen(tasks)
    _check(out)
    with folder_lock(out):
        sweep(out)
        _claim(out, tables)
        todo = [one for one in layouts if not (out / "manifests" / f"{one.name}.tsv").exists()]
        recorded = unlabelled or any(set(one.tasks) - set(SYNTHESISED) for one in todo)
        material = _material(out, debs, tables) if recorded else Material(())
        for one in todo:
            layout.write(one.name, one.plan(material), out)
        if unlabelled:
            list_unlabelled(out, material, debs, tables)
        inventory.write(out)


def _check(out: Path) -> None:
    """Make the folder, or refuse it: other things in it may bear the names of corpora, which are replaced."""
    out.mkdir(parents=True, exist_ok=True)
    others = [path for path in out.iterdir() if path.name != ".lock"]
    if others and not (out / MADE).exists():
        raise RunError(f"{out}: is not empty and holds no build of mini-SUPERB; choose another place")


def _claim(out: Path, tables: Path) -> None:
    """Have everything made anew that is of other packages or by other rules."""
    mark = out / MADE
    recorded = sha256_file(tables / "packages.tsv")
    made = f"{recorded}\n{VERSION} {sha256_file(*sorted(tables.glob('*.tsv*')))}\n"
    known = mark.read_text(encoding="utf8") if mark.exists() else ""
    if known and not known.startswith(recorded):
        shutil.rmtree(out / "corpus", ignore_errors=True)
    if known != made:
        for path in [*(out / "manifests").glob("*.tsv"), out / "corpus" / "clips.tsv"]:
            path.unlink(missing_ok=True)
        write_text(mark, made)


def _material(out: Path, debs: Path | None, tables: Path) -> Material:
    table = packages.table(tables / "packages.tsv")
    found = packages.fetch([table[name] for name in corpus.NEEDED], out / "packages", debs)
    place = out / "corpus"
    place.mkdir(exist_ok=True)
    return load(corpus.label(found, place), place, tables)


def list_unlabelled(out: Path, material: Material, debs: Path | None, tables: Path) -> None:
    """Decode all packages and write ``unlabelled/{train,valid}.tsv`` for compression and distillation.

    Training leaves out who is heard in a test, whoever is not known by name, and the clips by which
    speakers are identified. Validation has the voices that the tasks validate with.
    """
    table = packages.table(tables / "packages.tsv")
    names = [source.package for source in SOURCES]
    found = packages.fetch([table[name] for name in names], out / "packages", debs)
    samples = {
        f"{name}/{clip}.flac": length
        for name in names
        for clip, length in corpus.decode(name, found[name], out / "corpus").items()
    }
    lists: dict[str, list[Entry]] = {"train": [], "valid": []}
    roles = _roles(material)
    for path, length in samples.items():
        package = path.partition("/")[0]
        role = roles.get(path, "") if package == corpus.QUEEN else "train"
        if role and package not in SAME_PERSON and length >= SHORTEST * SAMPLE_RATE:
            lists[role].append(Entry(str((out / "corpus" / path).resolve()), length))
    (out / "unlabelled").mkdir(exist_ok=True)
    for name, entries in lists.items():
        Manifest(tuple(sorted(entries, key=lambda entry: entry.path))).save(
            out / "unlabelled" / f"{name}.tsv", overwrite=True
        )


def _roles(material: Material) -> dict[str, str]:
    """Clip of the game -> ``train`` or ``valid``; none for those that are left out."""
    tested = sid_asv_corpus.identified(material)
    roles = {}
    for utterance in material.of_the_game():
        path, voice = utterance.clip.path, utterance.clip.voice
        if voice in ROLES[DEV]:
            roles[path] = "valid"
        elif voice not in ROLES[TEST] and tested.get(path) in (None, "train"):
            roles[path] = "train"
    return roles
