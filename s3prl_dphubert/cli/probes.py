"""Command ``probe``: converged linear probes of hidden states on an aligned corpus."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..probe.aligned_corpus import AlignedCorpus
    from ..probe.comparison import ProbeDifference
    from ..probe.probe_record import ProbeRecord
    from ..probe.probing import LayerRequest


def add(commands: Any) -> None:
    """Add the command to a parser."""
    probe = commands.add_parser(
        "probe", help="classify words, phones and speakers from the hidden states of models"
    )
    probe.set_defaults(run=_probe, resumes=True)
    probe.add_argument(
        "models",
        nargs="*",
        metavar="CKPT",
        help="checkpoint of any source, random:CKPT, s3prl:UPSTREAM, log-mel or mfcc",
    )
    probe.add_argument(
        "--corpus", type=Path, metavar="PATH", help="a build of free-superb, or a table of aligned recordings"
    )
    probe.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder of the records, the table and the plots; with --compare, of its plot",
    )
    probe.add_argument(
        "--name",
        action="append",
        default=[],
        metavar="NAME",
        help="name of a model in reports; once for each CKPT, in their order (default: its folder)",
    )
    probe.add_argument(
        "--no-floors",
        action="store_true",
        help="leave out log-mel, MFCC and random weights of the first CKPT",
    )
    probe.add_argument("--device", default="", help="cpu, cuda … (default: a GPU if there is one)")
    probe.add_argument(
        "--jobs", type=int, default=0, help="recordings at a time (default: one for each core)"
    )
    probe.add_argument(
        "--compare",
        nargs=2,
        type=Path,
        metavar=("FIRST", "SECOND"),
        help="paired differences of two models with 95 %% intervals, from their records",
    )
    probe.add_argument(
        "--order",
        nargs="+",
        type=Path,
        metavar="RECORD",
        help="check that probes rank these models as they must, the worst first: random, early, late",
    )


def _probe(arguments: argparse.Namespace) -> None:
    from ..probe import comparison, probe_tables
    from ..probe.probe_record import read_all

    _check(arguments)
    if arguments.compare:
        first, second = read_all(arguments.compare)
        differences = comparison.differences(first, second)
        print(probe_tables.differences_table(differences))
        if arguments.out:
            _plot_differences(differences, arguments.out)
    elif arguments.order:
        print(probe_tables.orders_table(comparison.orders(read_all(arguments.order))))
    else:
        _run(arguments)


def _check(arguments: argparse.Namespace) -> None:
    """Refuse options that do not fit together, before anything is loaded.

    Raises:
        ConfigError: naming all of them.
        RunError: scipy is not installed.
    """
    from ..errors import ConfigError, RunError

    reading = [name for name in ("compare", "order") if getattr(arguments, name)]
    faults = []
    if len(reading) > 1 or (reading and (arguments.models or arguments.corpus)):
        faults.append(f"--{reading[0]} is given with other work, allowed: alone, it only reads records")
    folders = [path for path in (*(arguments.compare or ()), *(arguments.order or ())) if path.is_dir()]
    faults += [f"{path} is a folder, allowed: a record, {path}/NAME.probe.json" for path in folders]
    if arguments.order and arguments.out:
        faults.append("--out is given with --order, which writes nothing")
    if not reading:
        missing = [name for name in ("models", "corpus", "out") if not getattr(arguments, name)]
        faults += [f"{'CKPT' if name == 'models' else f'--{name}'} is missing" for name in missing]
    if len(arguments.name) > len(arguments.models):
        faults.append(f"--name is there {len(arguments.name)} times, allowed: once for each CKPT")
    if arguments.jobs < 0:
        faults.append(f"--jobs is {arguments.jobs}, allowed: 0 or more")
    ConfigError.raise_for("probe", faults)
    if find_spec("scipy") is None:  # for the intervals, which come last
        raise RunError("probe: needs scipy; pip install 's3prl-dphubert[superb]'")


def _run(arguments: argparse.Namespace) -> None:
    import os

    import torch

    from ..probe.probing import ProbeSuite, probe_sources

    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    requests = _requests(arguments, device)
    suite = ProbeSuite.of(_corpus(arguments.corpus))
    jobs = arguments.jobs or (1 if device != "cpu" else min(os.cpu_count() or 1, torch.get_num_threads()))
    for path, _ in probe_sources(requests, suite, arguments.out, jobs):
        print(path, flush=True)
    _report(arguments.out)


def _plot_differences(differences: Sequence[ProbeDifference], folder: Path) -> None:
    """Draw the differences of two models in a file that is named after them, and print its path."""
    from ..probe.probe_plots import plot_differences
    from ..probe.probe_record import SUFFIX, file_name

    first, second = (file_name(name) for name in (differences[0].first, differences[0].second))
    target = folder / f"{first.removesuffix(SUFFIX)}-{second.removesuffix(SUFFIX)}.png"
    folder.mkdir(parents=True, exist_ok=True)
    plot_differences(differences, target)
    print(target)


def _requests(arguments: argparse.Namespace, device: str) -> list[LayerRequest]:
    """Return the models and the floors, under names that differ.

    Raises:
        ConfigError: two have the same name.
    """
    from ..errors import ConfigError
    from ..probe.layer_sources import FLOORS, RANDOM, S3PRL, default_name
    from ..probe.probe_record import file_name
    from ..probe.probing import LayerRequest

    given = [
        (text, arguments.name[number] if number < len(arguments.name) else default_name(text))
        for number, text in enumerate(arguments.models)
    ]
    if not arguments.no_floors:
        plain = [text for text, _ in given if text not in FLOORS and not text.startswith((RANDOM, S3PRL))]
        floors = [*FLOORS, *(f"{RANDOM}{text}" for text in plain[:1])]
        given += [(text, default_name(text)) for text in floors if text not in arguments.models]
    files = [file_name(name) for _, name in given]
    twice = sorted({name for (_, name), file in zip(given, files, strict=True) if files.count(file) > 1})
    if twice:
        raise ConfigError(f"probe: two models have the name {twice[0]!r}; give each a --name of its own")
    return [LayerRequest(text, name, device) for text, name in given]


def _corpus(path: Path) -> AlignedCorpus:
    from ..free_superb.probe_corpus import aligned_corpus, is_build
    from ..probe.aligned_corpus import AlignedCorpus

    return aligned_corpus(path) if is_build(path) else AlignedCorpus.read(path)


def _report(folder: Path) -> None:
    """Write the table and the plots of all records in a folder, and print the table."""
    from ..probe import probe_plots, probe_tables
    from ..probe.probe_record import read_all
    from ..utils.files import write_text

    records = _sorted(read_all([folder]))
    text = probe_tables.scores_table(records)
    write_text(folder / "probes.md", text + "\n")
    probe_plots.plot(records, folder / "probes.png")
    print(text)


def _sorted(records: Iterable[ProbeRecord]) -> list[ProbeRecord]:
    """Order records by size, the floors first."""
    return sorted(records, key=lambda record: (record.facts.get("parameters") or 0, record.model))
