"""The build of FreeSUPERB: a folder that replaces, for the recipes, that of all official corpora."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ..constants import SAMPLE_RATE
from ..data.manifest import Entry, Manifest
from ..errors import ConfigError, RunError
from ..utils.files import remove_partial, write_text
from ..utils.hashing import sha256_file
from ..utils.locking import folder_lock
from . import clips, inventory, layout
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
from .layout import CorpusPlan
from .sources import packages
from .sources.recordings import QUEEN, SOURCES
from .utterance import Material, generator, load
from .voices import TRAIN

TABLES = Path(__file__).parent
MARK = ".made"  # identifies the packages and the rules that a folder was built from
VERSION = 2  # to be raised when the same recordings are laid out differently
SHORTEST = 0.1  # seconds of a clip for training without labels


@dataclass(frozen=True)
class TaskCorpus:
    """Corpus of one or more tasks.

    Attributes:
        name: name of its table in ``manifests``.
        tasks: names of the tasks.
        plan: function that plans its files.
    """

    name: str
    tasks: tuple[str, ...]
    plan: Callable[[Material], CorpusPlan]


CORPORA: tuple[TaskCorpus, ...] = (
    TaskCorpus("librispeech", ("PR", "ASR"), asr_corpus.plan),
    TaskCorpus("speech_commands", ("KS",), ks_corpus.plan),
    TaskCorpus("quesst", ("QbE",), qbe_corpus.plan),
    TaskCorpus("voxceleb", ("SID",), sid_asv_corpus.identification),
    TaskCorpus("verification", ("ASV",), sid_asv_corpus.verification),
    TaskCorpus("conversations", ("SD",), sd_corpus.plan),
    TaskCorpus("iemocap", ("ER",), lambda _: er_corpus.plan()),
    TaskCorpus("fluent_commands", ("IC",), lambda _: ic_corpus.plan()),
    TaskCorpus("snips", ("SF",), lambda _: sf_corpus.plan()),
    TaskCorpus("voicebank", ("SE",), se_ss_corpus.enhancement),
    TaskCorpus("libri2mix", ("SS",), se_ss_corpus.separation),
)

SYNTHESISED = ("ER", "IC", "SF")
"""Tasks without recordings."""

VALIDATION = 0.022
"""Share of the clips without labels that validate pre-training and compression, chosen by their names."""


def select(tasks: Iterable[str]) -> list[TaskCorpus]:
    """Return the corpora of tasks, given in any case; ``all`` selects every one.

    Raises:
        ConfigError: a task is unknown.
    """
    names = {task.strip().upper() for task in tasks}
    allowed = {task.upper() for each in CORPORA for task in each.tasks}
    ConfigError.raise_for(
        "--tasks",
        (
            f"unknown task {task}, allowed: all, {', '.join(sorted(allowed)).lower()}"
            for task in sorted(names - {"ALL"} - allowed)
        ),
    )
    return [each for each in CORPORA if "ALL" in names or names & {task.upper() for task in each.tasks}]


def build(
    out: Path,
    tasks: Iterable[str] = ("all",),
    debs: Path | None = None,
    unlabelled: bool = False,
    tables: Path = TABLES,
) -> None:
    """Fetch packages, decode and lay out what is missing, then write ``README.md`` and ``splits.json``.

    A build that was killed continues: complete packages, clips and corpora are not made again.

    Args:
        out: folder of the build, new or unfinished.
        tasks: names of the tasks.
        debs: folder with the packages, instead of downloading them.
        unlabelled: also decode all packages and list speech for training without labels.
        tables: folder with ``packages.tsv``, ``alignments.tsv.gz`` and ``lexicon.tsv.gz``.

    Raises:
        DPHubertError: a package is missing or damaged, a task unknown, or another process at work.
    """
    selected = select(tasks)
    _make_folder(out)
    with folder_lock(out):
        remove_partial(out)
        _discard_outdated(out, tables)
        missing = [each for each in selected if not (out / "manifests" / f"{each.name}.tsv").exists()]
        recorded = unlabelled or any(set(each.tasks) - set(SYNTHESISED) for each in missing)
        material = _label(out, debs, tables) if recorded else Material(())
        for each in missing:
            layout.write(each.name, each.plan(material), out)
        if unlabelled:
            list_unlabelled(out, material, debs, tables)
        inventory.write(out)


def _make_folder(out: Path) -> None:
    """Make the folder, or refuse one with other content: a build replaces folders named like corpora."""
    out.mkdir(parents=True, exist_ok=True)
    others = [path for path in out.iterdir() if path.name != ".lock"]
    if others and not (out / MARK).exists():
        raise RunError(f"{out}: is not empty and holds no build of FreeSUPERB; choose another folder")


def _discard_outdated(out: Path, tables: Path) -> None:
    """Discard what was made from other packages or by other rules."""
    mark = out / MARK
    packages_hash = sha256_file(tables / "packages.tsv")
    current = f"{packages_hash}\n{VERSION} {sha256_file(*sorted(tables.glob('*.tsv*')))}\n"
    previous = mark.read_text(encoding="utf8") if mark.exists() else ""
    if previous and not previous.startswith(packages_hash):
        shutil.rmtree(out / "corpus", ignore_errors=True)
    if previous != current:
        for path in [*(out / "manifests").glob("*.tsv"), out / "corpus" / "clips.tsv"]:
            path.unlink(missing_ok=True)
        write_text(mark, current)


def _label(out: Path, debs: Path | None, tables: Path) -> Material:
    """Fetch and decode the labelled packages."""
    table = packages.table(tables / "packages.tsv")
    paths = packages.fetch([table[name] for name in clips.NEEDED], out / "packages", debs)
    folder = out / "corpus"
    folder.mkdir(exist_ok=True)
    return load(clips.label(paths, folder), folder, tables)


def list_unlabelled(out: Path, material: Material, debs: Path | None, tables: Path) -> None:
    """Decode all packages and write ``unlabelled/{train,valid}.tsv`` for compression and distillation.

    They hold every clip but those of the game whose voice is held out or not known: cut scenes may have lines
    of voices that the tasks validate and test on.

    Args:
        out: folder of the build.
        material: labelled recordings.
        debs: folder with the packages, instead of downloading them.
        tables: folder with ``packages.tsv``.
    """
    table = packages.table(tables / "packages.tsv")
    names = [source.package for source in SOURCES]
    paths = packages.fetch([table[name] for name in names], out / "packages", debs)
    samples = {
        f"{name}/{clip}.flac": length
        for name in names
        for clip, length in clips.decode(name, paths[name], out / "corpus").items()
    }
    lists: dict[str, list[Entry]] = {"train": [], "valid": []}
    open_to_all = {utterance.clip.path for utterance in material.of_the_game(TRAIN)}
    for path, length in samples.items():
        heard = path in open_to_all or path.partition("/")[0] != QUEEN
        if heard and length >= SHORTEST * SAMPLE_RATE:
            name = "valid" if generator("unlabelled", path).random() < VALIDATION else "train"
            lists[name].append(Entry(str((out / "corpus" / path).resolve()), length))
    (out / "unlabelled").mkdir(exist_ok=True)
    for name, entries in lists.items():
        Manifest(tuple(sorted(entries, key=lambda entry: entry.path))).save(
            out / "unlabelled" / f"{name}.tsv", overwrite=True
        )
