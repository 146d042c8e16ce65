"""What a build holds: files, minutes and voices of every split, as JSON and as a page."""

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
from .corpus import read_table
from .layout import SYNTHESISED
from .voices import OPERATOR, ROLES, UNHEARD

PAGE, SPLITS = "README.md", "splits.json"
NAMES = [task.name for task in all_tasks()]
LABELS = ("KS", "ER")
"""Tasks whose labels are few enough to count."""

_NOTES = {
    "PR": "Reads the same files as ASR.",
    "ASR": "`test-other` is out of domain: another channel, telephone prompts, a voice of its own.",
    "KS": "Single words cut out of sentences. `_silence_` are pauses. `down` is rare.",
    "QbE": "No training. Documents and queries are of different voices.",
    "SID": "The same voices in all splits, as the protocol wants; the clips differ.",
    "ASV": "600 pairs of one voice, 600 of two; no test voice is in training.",
    "SD": "Two voices that never met, in turns that pause and overlap; turns come from the alignment.",
    "ER": "A smoke test: the prosody is synthesised. **Keep it out of every score.**",
    "IC": "Synthesised, as there are no free recordings; other variants of the synthesiser are tested.",
    "SF": "Synthesised, as Audio SNIPS itself is; other variants of the synthesiser are tested.",
    "SE": "Hiss, hum or babble added at 0 to 17.5 dB.",
    "SS": "Two voices at once, as long as the shorter.",
}


@dataclass
class _Split:
    files: int = 0
    seconds: float = 0.0
    voices: set[str] = field(default_factory=set)
    labels: Counter[str] = field(default_factory=Counter)


def count(out: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """Task -> split -> files, minutes, voices, those of them that ``hubert_nano`` heard, labels."""
    found: dict[str, dict[str, _Split]] = {}
    for path in sorted((out / "manifests").glob("*.tsv")):
        for row in read_table(path):
            split = found.setdefault(row["task"], {}).setdefault(row["split"], _Split())
            split.files += 1
            split.seconds += float(row["seconds"])
            split.voices.update(row["voices"].split())
            if row["task"] in LABELS:
                split.labels[row["label"]] += 1
    if "ASR" in found:
        found["PR"] = found["ASR"]
    return {
        task: {name: _plain(split) for name, split in found[task].items()} for task in NAMES if task in found
    }


def _plain(split: _Split) -> dict[str, Any]:
    recorded = {OPERATOR, *sum(ROLES.values(), ())} & split.voices
    return {
        "files": split.files,
        "minutes": round(split.seconds / 60, 2),
        "voices": sorted(split.voices),
        "heard_by_hubert_nano": sorted(recorded - set(UNHEARD)),
        **({"labels": dict(sorted(split.labels.items()))} if split.labels else {}),
    }


def digest(out: Path) -> str:
    """SHA-256 over path and content of every file that the tasks read."""
    files = (path for folder in sorted(_folders(out)) for path in sorted((out / folder).rglob("*")))
    return sha256_tree(out, (path for path in files if path.is_file()))


def _folders(out: Path) -> set[str]:
    tables = sorted((out / "manifests").glob("*.tsv"))
    return {row["path"].partition("/")[0] for path in tables for row in read_table(path)}


def write(out: Path) -> None:
    """Write ``splits.json`` and ``README.md``."""
    values = {"sha256": digest(out), "tasks": count(out)}
    write_text(out / SPLITS, json.dumps(values, indent=1) + "\n")
    write_text(out / PAGE, page(values))


def page(known: dict[str, Any]) -> str:
    """Markdown of everything that a build holds, from its ``splits.json``."""
    tasks: dict[str, dict[str, dict[str, Any]]] = known["tasks"]
    rows = [
        [task, name, str(split["files"]), f"{split['minutes']:.1f}", str(len(split["voices"]))]
        for task, found in tasks.items()
        for name, split in found.items()
    ]
    parts = [
        HEAD,
        markdown.table(["task", "split", "files", "minutes", "voices"], rows),
        "\n".join(f"- **{task}**: {_NOTES[task]}" for task in tasks),
        "## Who is heard in the tests",
        HEARD.format(unheard=", ".join(UNHEARD)),
        _heard(tasks),
        *(_labels(task, tasks[task]) for task in LABELS if task in tasks),
        f"All files of the tasks together: sha256 `{known['sha256']}`.",
    ]
    return "\n\n".join(parts) + "\n"


def _heard(tasks: dict[str, dict[str, dict[str, Any]]]) -> str:
    rows = []
    for task, found in tasks.items():
        for name, split in found.items():
            if name.startswith("test") or name == "documents":
                heard = split["heard_by_hubert_nano"]
                unheard = [voice for voice in split["voices"] if voice not in heard]
                rows.append([task, name, ", ".join(unheard), ", ".join(heard)])
    return markdown.table(["task", "test split", "voices not heard", "voices heard, unlabelled"], rows)


def _labels(task: str, found: dict[str, dict[str, Any]]) -> str:
    names = sorted({label for split in found.values() for label in split.get("labels", {})})
    counts = [split.get("labels", {}) for split in found.values()]
    rows = [[f"`{label}`", *(str(count.get(label, 0)) for count in counts)] for label in names]
    return markdown.table([task, *found], rows)


HEAD = f"""# mini-SUPERB

A benchmark in SUPERB's shape, of real speech from Debian packages, small enough for two cores. It tells
upstreams apart; its numbers are not SUPERB's and must not be compared with them.

Made by `s3prl-dphubert mini-superb --out DIR`; the recipes in `downstream_recipes/mini_superb` read `DIR`:

```sh
s3prl-dphubert superb run --upstream NAME --tasks pr,asr,ks,qbe,sid,asv,sd,ic,sf --data DIR \\
    --recipes downstream_recipes/mini_superb --out RUN
```

Recordings: Flight of the Amazon Queen (John Passfield and Steven Stamatiadis, freeware) and Asterisk's
English prompts (CC-BY-SA-3.0). `manifests/` names source, licence, voices and split of each file; what has
no source is "{SYNTHESISED}".
Nothing of it is redistributed: a build fetches the packages, compares their SHA-256 and cuts everything on
the spot. Word times were found by forced alignment with pocketsphinx
(`python -m s3prl_dphubert.mini.align DIR` finds them anew); only times ship, the texts are in the packages.
The voices are characters of a game; one actor may speak several of them. Of those who speak in cut scenes
only the hero is known; the others' lines there are used nowhere."""

HEARD = """A voice is for training, validation or testing, the same in every task but SID. `hubert_nano` was
pre-trained, without labels, on these packages except for the lines of {unheard}.
`--unlabelled` lists what may be trained on so that no test is heard: without the test voices, the prompts'
voice in English and Spanish, unknown voices, and SID's validation and test clips."""
