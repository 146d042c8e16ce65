"""The content of a build: files, minutes and voices of every split, as JSON and as a page."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..superb.tasks import all_tasks
from ..utils import markdown
from ..utils.files import write_text
from ..utils.hashing import sha256_tree
from ..utils.readers import read_table
from .layout import SYNTHESISED
from .voices import DEV, HELD_OUT, ROLES, TEST

PAGE, SPLITS = "README.md", "splits.json"
NAMES = [task.name for task in all_tasks()]
LABELS = ("KS", "ER")
"""Tasks with few enough labels to count."""

_NOTES = {
    "PR": "Reads the same files as ASR.",
    "ASR": "All aligned speech. Five eighths of the training speech are by one voice, a tenth prompts.",
    "KS": "Single words cut out of sentences. `_silence_` is made of pauses. `down` is rare.",
    "QbE": "No training. Documents and queries are of different voices.",
    "SID": "The same voices in all splits, as the protocol requires; clips differ. No upstream heard any.",
    "ASV": "All pairs of the test clips; no test voice is in training.",
    "SD": "Two voices recorded separately, with pauses and overlaps; turns come from the alignment.",
    "ER": "A smoke test: the prosody is synthesised. **Do not include it in any score.**",
    "IC": "Synthesised, as there are no free recordings; the test set has other voices of the synthesiser.",
    "SF": "Synthesised, like Audio SNIPS itself; the test set has other voices of the synthesiser.",
    "SE": "Hiss, hum or babble added at 0 to 17.5 dB.",
    "SS": "Two voices at once, cut to the length of the shorter.",
}


LISTED = ("task", "split", "seconds", "voices", "label", "path")
"""Columns of the table of a corpus."""


@dataclass
class _Split:
    files: int = 0
    seconds: float = 0.0
    voices: set[str] = field(default_factory=set)
    labels: Counter[str] = field(default_factory=Counter)


def count(out: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """Return task -> split -> files, minutes, voices and labels."""
    tasks: dict[str, dict[str, _Split]] = {}
    for path in sorted((out / "manifests").glob("*.tsv")):
        for row in read_table(path, LISTED):
            split = tasks.setdefault(row["task"], {}).setdefault(row["split"], _Split())
            split.files += 1
            split.seconds += float(row["seconds"])
            split.voices.update(row["voices"].split())
            if row["task"] in LABELS:
                split.labels[row["label"]] += 1
    if "ASR" in tasks:
        tasks["PR"] = tasks["ASR"]
    return {
        task: {name: _summary(split) for name, split in tasks[task].items()}
        for task in NAMES
        if task in tasks
    }


def _summary(split: _Split) -> dict[str, Any]:
    return {
        "files": split.files,
        "minutes": round(split.seconds / 60, 2),
        "voices": sorted(split.voices),
        **({"labels": dict(sorted(split.labels.items()))} if split.labels else {}),
    }


def digest(out: Path) -> str:
    """Return the SHA-256 over path and content of every file that the tasks read."""
    tables = sorted((out / "manifests").glob("*.tsv"))
    folders = {row["path"].partition("/")[0] for path in tables for row in read_table(path, ("path",))}
    files = (path for folder in sorted(folders) for path in sorted((out / folder).rglob("*")))
    return sha256_tree(out, (path for path in files if path.is_file()))


def write(out: Path) -> None:
    """Write ``splits.json`` and ``README.md``."""
    values = {"sha256": digest(out), "tasks": count(out)}
    write_text(out / SPLITS, json.dumps(values, indent=1) + "\n")
    write_text(out / PAGE, page(values))


def page(content: dict[str, Any]) -> str:
    """Describe the content of a build, given by its ``splits.json``, in Markdown."""
    tasks: dict[str, dict[str, dict[str, Any]]] = content["tasks"]
    rows = [
        [task, name, str(split["files"]), f"{split['minutes']:.1f}", str(len(split["voices"]))]
        for task, splits in tasks.items()
        for name, split in splits.items()
    ]
    parts = [
        HEAD,
        markdown.table(["task", "split", "files", "minutes", "voices"], rows),
        "\n".join(f"- **{task}**: {_NOTES[task]}" for task in tasks),
        VOICES.format(dev=", ".join(ROLES[DEV]), test=", ".join(ROLES[TEST]), count=len(HELD_OUT)),
        *(_labels(task, tasks[task]) for task in LABELS if task in tasks),
        f"SHA-256 of all files of the tasks: `{content['sha256']}`.",
    ]
    return "\n\n".join(parts) + "\n"


def _labels(task: str, splits: dict[str, dict[str, Any]]) -> str:
    names = sorted({label for split in splits.values() for label in split.get("labels", {})})
    counts = [split.get("labels", {}) for split in splits.values()]
    rows = [[f"`{label}`", *(str(count.get(label, 0)) for count in counts)] for label in names]
    return markdown.table([task, *splits], rows)


HEAD = f"""# FreeSUPERB

A benchmark in the layout of SUPERB, made of real speech from Debian packages and small enough for two cores.
It ranks upstreams; its numbers are not those of SUPERB and must not be compared with them.

Made by `s3prl-dphubert free-superb --out DIR`; the recipes in `downstream_recipes/free_superb` read `DIR`:

```sh
s3prl-dphubert superb run --upstream NAME --tasks pr,asr,ks,qbe,sid,asv,sd,ic,sf --data DIR \\
    --recipes free_superb --out RUN
```

Recordings: Flight of the Amazon Queen (John Passfield and Steven Stamatiadis, freeware) and Asterisk's
English prompts (CC-BY-SA-3.0). `manifests/` lists source, licence, voices and split of each file; files
without a source are marked "{SYNTHESISED}".
No recording is redistributed: a build fetches the packages, verifies their SHA-256 and cuts everything
locally. Times of words and phones were found by forced alignment with pocketsphinx
(`python -m s3prl_dphubert.free_superb.align DIR` repeats it); only the times ship, the texts are in the
packages.
The voices are characters of a game; one actor may speak several of them. Of the speakers in cut scenes only
the hero can be identified; the lines of the others are not used.

MiniSUPERB ([arXiv 2305.19011](https://arxiv.org/abs/2305.19011)) is another benchmark. It keeps four tasks of
SUPERB, samples their corpora, and is judged by how well its ranks agree with SUPERB's. FreeSUPERB has all
tasks, but on speech that anybody may download without registration, and for models that two cores can train;
its ranks have not been compared with SUPERB's."""

VOICES = """## Voices

A recorded voice is for training, validation or testing, the same in every task but SID. {count} voices are
held out: {dev} validate, and
{test} test. No upstream may have heard them, with labels or without,
if its results are to count. `--unlabelled` lists the speech to pre-train and compress with: all packages
without the lines of these voices and of unknown ones. Of its clips 2.2 %, chosen by their names, validate.

SID trains on voices that it tests on, as its protocol requires. It uses the held-out ones only, so that all
upstreams meet them for the first time."""
