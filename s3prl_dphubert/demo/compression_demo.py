"""The demo: compression of the teacher that ships on the speech that ships, then s3prl on the result."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..checkpoints.directory import save_model
from ..checkpoints.load import load_model
from ..checkpoints.model_card import units_table
from ..checkpoints.teachers import TEACHERS
from ..compression.compress_config import CompressConfig
from ..compression.pipeline import compress
from ..compression.run_summary import cost_lines, loss_lines, sparsity_lines
from ..data.manifest import scan, write
from ..errors import RunError
from ..model.profiler import real_time_factors
from ..utils import resources
from ..utils.config_io import from_dict, merge, read_yaml
from ..utils.readers import read_json
from . import speaker_id


def demo(out: Path, config: Path | None = None) -> None:
    """List the embedded speech, compress ``hubert_mini`` on it, print a report, and run SID in s3prl.

    Beside the compressed model stands a DistilHuBERT of its size, trained with as many updates.

    Args:
        out: directory for the manifests and the runs; an interrupted demo is continued.
        config: YAML of another run than ``upstream_configs/demo.yaml``, without the manifests; there is no
            DistilHuBERT beside it.

    Raises:
        DPHubertError: a step failed.
    """
    speech = resources.find("assets/speech")
    manifests, skipped = scan([speech], min_seconds=0.4, splits={"valid": "*[05].ogg"})
    print(write(out / "speech.tsv", manifests, skipped, overwrite=True))
    settings = _settings(config or resources.find("upstream_configs/demo.yaml"), out)
    compress(settings, out / "run")
    show(out / "run", settings)
    runs = {"compressed": out / "run"}
    if config is None:
        runs["DistilHuBERT"] = out / "distilhubert"
        print("\nDistilHuBERT of the same size, trained with as many updates", flush=True)
        compress(
            _settings(resources.find("upstream_configs/demo_distilhubert.yaml"), out), out / "distilhubert"
        )
    if speaker_id.installed():
        identify(out / "sid", runs, settings.teacher)
    else:
        print(f"\n{speaker_id.MISSING}")


def _settings(config: Path, out: Path) -> CompressConfig:
    """Return a configuration with the manifests of the demo."""
    paths = {"data": {"train": str(out / "speech.tsv"), "valid": str(out / "speech.valid.tsv")}}
    settings: CompressConfig = from_dict(CompressConfig, merge(read_yaml(config), paths))
    return settings


def show(run: Path, settings: CompressConfig) -> None:
    """Print the remaining units, cost, losses and speed of a finished run.

    Args:
        run: directory of the run.
        settings: its configuration.
    """
    results = read_json(run / "results.json", RunError)
    teacher, model = load_model(settings.teacher), load_model(run / "model")
    print(f"\n{units_table(model.config)}\n")
    print("\n".join([*cost_lines(results), *sparsity_lines(results), "", *loss_lines(results)]))
    speed = real_time_factors({"teacher": teacher, "compressed": model})
    ratio = speed["compressed"] / speed["teacher"]
    print(f"\nreal-time factor        {speed['teacher']:.4f} -> {speed['compressed']:.4f}   {ratio:.2f} x")
    print(
        f"\nspeech  {resources.find('assets/speech')}, credits in CREDITS.txt, licences in LICENSES.md; among"
    )
    print("        the voices (c) Marco Menardi e Paola Dal Zot, http://www.voip.ammdomus.it")
    print(f"model   {run / 'model'}\nplots   {run / 'training.png'}, {run / 'units.png'}")


def identify(out: Path, runs: Mapping[str, Path], teacher: str) -> None:
    """Train and evaluate speaker identification by s3prl on teacher and students, and print the scores.

    Args:
        out: directory for the output of s3prl.
        runs: title of a student -> directory of its finished run.
        teacher: source of their teacher.
    """
    results = {title: read_json(run / "results.json", RunError) for title, run in runs.items()}
    first = next(iter(results.values()))
    title = f"{Path(teacher).name} (teacher)"
    compared = [("teacher", title, first["teacher"], _checkpoint(teacher, out))]
    compared += [
        (title.lower(), title, results[title]["model"], run / "model") for title, run in runs.items()
    ]
    upstreams = [speaker_id.ComparedUpstream("fbank", "fbank")]
    for name, title, cost, checkpoint in compared:
        upstreams.append(
            speaker_id.ComparedUpstream(name, title, cost["parameters"], cost["macs"], checkpoint)
        )
    print("\nspeaker identification by s3prl's run_downstream on the embedded voices", flush=True)
    accuracies, chance = speaker_id.identify(upstreams, out)
    print(f"\n{speaker_id.table(upstreams, accuracies, chance, first['macs_seconds'])}")
    print("This checks that all parts work together and is no benchmark: few clips, few steps, and voices")
    print(f"that language and codec give away.\nlogs    {out}")


def _checkpoint(teacher: str, out: Path) -> Path:
    """Return the teacher as a checkpoint directory, as ``dphubert_local`` needs it."""
    if teacher in TEACHERS and TEACHERS[teacher].repository is None:
        return resources.find(f"assets/{teacher}")
    folder = out / "teacher_model"
    if not folder.exists():
        save_model(load_model(teacher), folder)
    return folder
