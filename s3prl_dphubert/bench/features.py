"""Benchmark of cached hidden states: s3prl's run_downstream with and without a cache, in turns.

The task is emotion recognition on the embedded voices with arbitrary labels, since the time of a step depends
only on the audio and the models. Three runs take turns for each upstream: without a cache, with an empty one,
and with the one that the previous run has filled, as for the second point of a sweep. Times are those of
complete runs of s3prl without its imports.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import soundfile
import torch
import yaml

from ..checkpoints.directory import save_model
from ..checkpoints.load import load_model
from ..constants import SAMPLE_RATE
from ..data.audio import read
from ..demo.voice_corpus import choose
from ..errors import ConfigError, DPHubertError
from ..model import ModelConfig, SpeechModel
from ..superb.run.feature_cache_policy import needed, options
from ..superb.run.workers.launcher import Launcher
from ..utils import resources
from ..utils.config_io import merge, read_yaml
from ..utils.files import write_text

LABELS = ("neu", "hap", "ang", "sad")
BATCH = 4
WAYS = ("without", "empty", "full")
DEV = 0.2  # share of the clips that s3prl validates on
LIMIT = "20GB"
UPSTREAMS = ("hubert_mini", "base")
EPOCHS, SECONDS, REPEATS = 5, 60.0, 2


@dataclass(frozen=True)
class CacheSpeedup:
    """Times of one upstream.

    Args:
        upstream: name of the upstream.
        seconds: training audio.
        epochs: number of epochs.
        stored: bytes of hidden states of the training audio.
        times: seconds of the best run ``without`` a cache, with an ``empty`` and with a ``full`` one.
    """

    upstream: str
    seconds: float
    epochs: int
    stored: int
    times: Mapping[str, float]

    def row(self) -> str:
        """Return a line of the table."""
        plain, empty, full = (self.times[way] for way in WAYS)
        return (
            f"{self.upstream:<14}{self.seconds:>9.0f}{self.epochs:>8}{self.stored / 1e6:>9.1f}"
            f"{plain:>12.1f}{empty:>12.1f}{full:>12.1f}{plain / empty:>17.1f}{plain / full:>7.1f}"
        )


HEAD = (
    f"{'upstream':<14}{'audio (s)':>9}{'epochs':>8}{'MB':>9}{'without (s)':>12}{'empty (s)':>12}"
    f"{'full (s)':>12}{'speed-up: empty':>17}{'full':>7}"
)


def measure(
    out: Path,
    upstreams: Sequence[str] = UPSTREAMS,
    epochs: int = EPOCHS,
    seconds: float = SECONDS,
    repeats: int = REPEATS,
    device: str = "cpu",
) -> list[CacheSpeedup]:
    """Run s3prl with and without a cache, and write ``features.json`` beside the runs.

    Args:
        out: output folder, empty or new.
        upstreams: ``hubert_mini``, ``base`` (HuBERT Base's shape, random weights), or checkpoints.
        epochs: epochs of each training.
        seconds: training audio; the development set has another quarter of it.
        repeats: runs of each kind, of which the fastest counts.
        device: value of s3prl's ``--device``.

    Raises:
        ConfigError: ``out`` is not empty, or a number is too small.
        RunError: s3prl failed.
    """
    numbers = {"epochs": epochs, "seconds": seconds, "repeats": repeats}
    faults = [f"{name} is {value}, allowed: 1 or more" for name, value in numbers.items() if value < 1]
    if out.exists() and any(out.iterdir()):
        faults.append(f"out is {out}, allowed: an empty folder")
    ConfigError.raise_for("bench features", faults)
    out = out.absolute()
    length, steps = _corpus(out / "corpus", seconds)
    config = _configure(out, epochs * steps, steps)
    models = {f"{number}-{Path(name).name}": _model(name, out) for number, name in enumerate(upstreams, 1)}
    times = _best_times(out, models, config, repeats, device)
    speedups = []
    for name, model in models.items():
        shape = load_model(model).config
        size = needed(length, shape.num_layers + 1, shape.embed_dim, shape.stride)
        speedups.append(CacheSpeedup(name.partition("-")[2], length, epochs, size, times[name]))
    write_text(out / "features.json", json.dumps([asdict(each) for each in speedups], indent=1) + "\n")
    return speedups


def _best_times(
    out: Path, models: Mapping[str, Path], config: Path, repeats: int, device: str
) -> dict[str, dict[str, float]]:
    """Return upstream -> way -> seconds of the fastest of its runs, which take turns."""
    times: dict[str, dict[str, float]] = {name: {} for name in models}
    with Launcher({"OMP_NUM_THREADS": str(torch.get_num_threads())}) as launcher:
        for turn in range(repeats):
            for name, model in models.items():
                for way in WAYS:
                    cache = None if way == "without" else out / "cache" / f"{name}-{turn}"
                    run = DownstreamRun(out / f"{name}-{way}-{turn}", model, config, cache, device)
                    took = run.time(launcher)
                    times[name][way] = min(took, times[name].get(way, took))
    return times


def table(speedups: Sequence[CacheSpeedup]) -> str:
    """Tabulate the times; a speed-up is the time without a cache divided by that with a cache."""
    return "\n".join([HEAD, *(each.row() for each in speedups)])


@dataclass(frozen=True)
class DownstreamRun:
    """One training by s3prl.

    Args:
        folder: output folder.
        model: checkpoint of the upstream.
        config: value of ``-c``.
        cache: folder of the cache, if any.
        device: value of ``--device``.
    """

    folder: Path
    model: Path
    config: Path
    cache: Path | None
    device: str

    def time(self, launcher: Launcher) -> float:
        """Train; returns the seconds from the loading of the upstream to the last checkpoint."""
        self.folder.mkdir()
        upstream_options = {"padding": "exact"} if self.cache is None else options(self.cache, LIMIT)
        write_text(self.folder / "options.yaml", yaml.safe_dump(upstream_options))
        arguments = ["-m", "train", "-d", "emotion", "-c", str(self.config), "-p", str(self.folder)]
        arguments += ["-u", "dphubert_local", "-k", str(self.model), "-g", str(self.folder / "options.yaml")]
        upstream = {"name": "dphubert_local", "called": {"ckpt": str(self.model)}}
        probe = [str(self.folder / "upstream.json"), json.dumps(upstream)]
        launcher.run("measure", probe, self.folder / "import.log", self.folder)  # imports s3prl
        start = time.perf_counter()
        log = self.folder / "train.log"
        launcher.run("downstream", [*arguments, "--device", self.device], log, self.folder)
        return time.perf_counter() - start


def _model(name: str, out: Path) -> Path:
    """Return the checkpoint of a named upstream, or the given path."""
    if name == "hubert_mini":
        return resources.find("assets/hubert_mini")
    if name != "base":
        return Path(name).absolute()
    torch.manual_seed(0)
    return save_model(SpeechModel(ModelConfig()).eval(), out / "base")


def _corpus(root: Path, seconds: float) -> tuple[float, int]:
    """Write clips in IEMOCAP's layout; returns the seconds of training audio and the steps of an epoch.

    s3prl takes its development set from the listed clips.
    """
    rows: list[dict[str, str]] = []
    lengths: list[float] = []
    for clip in choose():
        audio = read(clip.source)
        if len(audio) < SAMPLE_RATE:
            continue
        path = root / "Session2" / f"{len(rows)}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, audio, SAMPLE_RATE, subtype="PCM_16")
        label = LABELS[len(rows) % len(LABELS)]
        rows.append({"path": str(path.relative_to(root)), "label": label, "speaker": clip.speaker})
        lengths.append(len(audio) / SAMPLE_RATE)
        if sum(lengths) >= seconds / (1 - DEV) and len(rows) >= 5 * BATCH:
            break
    table = {"labels": {name: index for index, name in enumerate(LABELS)}, "meta_data": rows}
    folder = root / "meta_data" / "Session1"
    folder.mkdir(parents=True)
    for split, content in {"train": rows, "test": rows[:BATCH]}.items():
        write_text(folder / f"{split}_meta_data.json", json.dumps(table | {"meta_data": content}))
    train = int((1 - DEV) * len(rows))
    return sum(lengths) * train / len(rows), -(-train // BATCH)


def _configure(out: Path, steps: int, epoch: int) -> Path:
    """Write the recipe of emotion recognition with these steps, validated each epoch; returns its path."""
    data = {"root": str(out / "corpus"), "meta_data": str(out / "corpus" / "meta_data"), "num_workers": 0}
    runner = {"total_steps": steps, "log_step": epoch, "eval_step": epoch, "save_step": steps}
    runner |= {"gradient_accumulate_steps": 1, "max_keep": 1}
    recipe = read_yaml(resources.find("downstream_recipes/er/config.yaml"))
    changes = {"runner": runner, "downstream_expert": {"datarc": {**data, "valid_ratio": DEV}}}
    write_text(out / "config.yaml", yaml.safe_dump(merge(recipe, changes)))
    return out / "config.yaml"


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(prog="python -m s3prl_dphubert.bench.features", description=__doc__)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for the runs, empty or new")
    parser.add_argument(
        "--upstreams", nargs="+", default=list(UPSTREAMS), help="hubert_mini, base (random) or checkpoints"
    )
    parser.add_argument("--epochs", type=int, default=EPOCHS, help=f"default {EPOCHS}")
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"of audio (default {SECONDS:g})")
    parser.add_argument("--repeats", type=int, default=REPEATS, help=f"the best counts (default {REPEATS})")
    parser.add_argument("--device", default="cpu", help="as s3prl's (default cpu)")
    try:
        print(table(measure(**vars(parser.parse_args()))))
    except DPHubertError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
