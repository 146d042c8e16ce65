"""The command ``bench``."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..errors import ConfigError

SHAPES = ("base", "pruned", "macs", "distilhubert")
PRECISIONS = ("fp32", "bf16", "auto")
BATCHES = ("1x4", "1x15", "8x10", "mixed")
ALONE = {
    "table": ("threads", "model"),
    "training": ("out", "reference", "threads", "repeats"),
    "device": ("out", "reference", "repeats", "shapes"),
}
"""Option that measures something else than inference -> options that go with it."""


def add(commands: Any) -> None:
    """Add the command to a parser."""
    bench = commands.add_parser(
        "bench", help="how fast models infer or train here, beside other implementations"
    )
    bench.set_defaults(run=lambda arguments: _bench(arguments, bench.get_default))
    bench.add_argument("--out", type=Path, help="folder of the results; again: goes on")
    bench.add_argument(
        "--table",
        type=Path,
        metavar="FILE",
        help="only measure what the units of a teacher cost, for budgets in time",
    )
    bench.add_argument(
        "--model", default="hubert_base", help="the teacher of --table, as in a run (default hubert_base)"
    )
    bench.add_argument(
        "--training",
        action="store_true",
        help="time updates of stage 1 on the CPU instead; begins anew, in an OUT of its own",
    )
    bench.add_argument(
        "--device",
        help="time inference and an update of stage 1 on a GPU instead (cuda, cuda:1); 4 minutes",
    )
    bench.add_argument(
        "--reference", type=Path, metavar="CLONE", help="a clone of pyf98/DPHuBERT, to run too"
    )
    bench.add_argument("--transformers", action="store_true", help="run HuBERT Base of transformers too")
    bench.add_argument("--s3prl", action="store_true", help="run HuBERT Base and DistilHuBERT of s3prl too")
    bench.add_argument(
        "--checkpoint", type=Path, nargs="+", default=[], metavar="PATH", help="checkpoints to run too"
    )
    bench.add_argument(
        "--exported", type=Path, nargs="+", default=[], metavar="FILE", help="exported files to run too"
    )
    bench.add_argument(
        "--shapes",
        nargs="+",
        choices=SHAPES,
        default=list(SHAPES),
        help="models with random weights (default all)",
    )
    bench.add_argument(
        "--batches",
        nargs="+",
        choices=BATCHES,
        default=[],
        help="utterances x seconds (default all; with --quick two short ones)",
    )
    bench.add_argument(
        "--precision",
        nargs="+",
        choices=PRECISIONS,
        default=["fp32", "bf16"],
        help="of folded models; auto, the faster one here (default fp32 bf16)",
    )
    bench.add_argument(
        "--against",
        type=Path,
        metavar="OLD",
        help="speed.json of an earlier benchmark: say what became slower by more than the noise",
    )
    bench.add_argument("--threads", type=int, help="threads of each (default: as torch takes)")
    bench.add_argument("--turns", type=int, help="runs of each with each batch (default 10)")
    bench.add_argument("--repeats", type=int, help="timed updates of each with --training (default 4)")
    bench.add_argument("--quick", action="store_true", help="3 turns, short batches")
    bench.add_argument(
        "--prepare", action="store_true", help="only write the models, OUT/models, such as to export them"
    )


def _bench(arguments: argparse.Namespace, default: Callable[[str], Any]) -> None:
    ConfigError.raise_for("bench", _faults(arguments, default))
    chosen: dict[str, Any] = {
        name: value for name in ("threads", "repeats") if (value := getattr(arguments, name)) is not None
    }
    if arguments.table is not None:
        from ..bench import units

        chosen["model"] = arguments.model
        units.main([str(arguments.table), *(f"--{name}={value}" for name, value in chosen.items())])
    elif arguments.device is not None:
        from ..bench import device, model_shapes

        shapes = {name: model_shapes.SHAPES[name] for name in SHAPES if name in arguments.shapes}
        settings: dict[str, Any] = {"device": arguments.device, "reference": arguments.reference}
        benchmark = device.DeviceBenchmark(arguments.out, shapes=shapes, **settings, **chosen)
        for path in device.write(benchmark):
            print(path)
    elif arguments.training:
        from ..bench import training

        print(_processor())
        case = training.Case(reference=arguments.reference, **chosen)
        for path in training.write(case, arguments.out):
            print(path)
    else:
        _inference(arguments, chosen)


def _faults(arguments: argparse.Namespace, default: Callable[[str], Any]) -> Iterator[str]:
    changed = [n for n, v in vars(arguments).items() if n not in ("run", "command") and v != default(n)]
    mode = next((name for name in ALONE if name in changed), None)
    if mode is None:
        if "repeats" in changed:
            yield "repeats is given without training, allowed: turns"
        if "model" in changed:
            yield "model is given without table, allowed: checkpoint"
    elif others := [name for name in changed if name not in (mode, *ALONE[mode])]:
        yield f"{', '.join(others)} given with {mode}, allowed: {', '.join(ALONE[mode])}"
    if mode != "table" and arguments.out is None:
        yield "out is missing, allowed: a folder, or --table FILE alone"


def _inference(arguments: argparse.Namespace, chosen: dict[str, Any]) -> None:
    from ..bench import model_shapes, speed_changes, workload
    from ..bench.inference import Benchmark, measure

    before = None if arguments.against is None else speed_changes.read_results(arguments.against)
    benchmark = Benchmark(
        out=arguments.out,
        reference=arguments.reference,
        transformers=arguments.transformers,
        s3prl=arguments.s3prl,
        checkpoints=tuple(arguments.checkpoint),
        exported=tuple(arguments.exported),
        shapes={name: config for name, config in model_shapes.SHAPES.items() if name in arguments.shapes},
        turns=arguments.turns,
        precisions=tuple(dict.fromkeys(arguments.precision)),
        quick=arguments.quick,
        workloads=[workload.BATCHES[name] for name in dict.fromkeys(arguments.batches)],
        **chosen,
    )
    if arguments.prepare:
        for path in benchmark.prepare():
            print(path)
        return
    from ..bench.speed_report import write

    print(_processor())
    paths = write(benchmark, measure(benchmark), _command(arguments))
    for path in paths:
        print(path)
    if before is not None:
        print(f"\n{speed_changes.table(speed_changes.compare(before, speed_changes.read_results(paths[0])))}")


def _processor() -> str:
    """Return a line on the processor that all times are of."""
    from ..bench.machine import machine

    facts = machine()
    return f"{facts['processor']}, family {facts['family, model']}, {facts['cores']} cores, {facts['flags']}"


def _command(arguments: argparse.Namespace) -> str:
    """Return the command line without the names of this machine's folders."""
    words = ["s3prl-dphubert bench --out OUT"]
    if arguments.reference:
        words.append("--reference CLONE")
    words += [f"--{name}" for name in ("transformers", "s3prl", "quick") if getattr(arguments, name)]
    words += [f"--{name} {v}" for name in ("threads", "turns") if (v := getattr(arguments, name)) is not None]
    if arguments.precision != ["fp32", "bf16"]:
        words += ["--precision", *arguments.precision]
    if set(arguments.shapes) != set(SHAPES):
        words += ["--shapes", *arguments.shapes]
    if arguments.batches:
        words += ["--batches", *arguments.batches]
    for option in ("checkpoint", "exported"):
        if paths := getattr(arguments, option):
            words += [f"--{option}", *(str(Path(path.parent.name, path.name)) for path in paths)]
    return " ".join(words)
