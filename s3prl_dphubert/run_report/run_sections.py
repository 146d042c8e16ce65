"""Sections of the page about compression runs: cost, units, training and how to repeat them."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence

import yaml

from ..checkpoints.units_figure import units_figure
from ..compression.run_directory import CONFIG
from ..compression.run_plots import training_figure
from ..compression.run_record import Cost, RunRecord
from ..compression.run_summary import LOSSES
from ..model.cost import superb_macs
from ..utils.readers import section
from .measured_speed import MeasuredSpeed, exported_files
from .page_blocks import (
    Block,
    Cell,
    Folded,
    Gallery,
    Listing,
    PageTable,
    Paragraph,
    Picture,
    Section,
    Tile,
    amount,
    decimal,
    missing,
)
from .page_figures import comparison_figure, last_loss

NamedRuns = Sequence[tuple[str, RunRecord]]
"""Runs under names that differ."""
UNKNOWN = Cell("–")
NOT_MEASURED = "Speed was not measured; report --measure times the models on this machine."


def tiles(runs: NamedRuns, speed: MeasuredSpeed | None) -> list[Tile]:
    """Return the numbers to see at a glance: four of one run, one of each of several."""
    if len(runs) > 1:
        return [_size_tile(name, run, last_loss(run)) for name, run in runs]
    ((_, run),) = runs
    shown = [_size_tile("parameters", run)]
    if run.cost is not None:
        before = run.teacher_cost
        note = _of(run.cost.macs, before.macs) if before else ""
        shown.append(Tile(f"MACs of {run.seconds:g} s", amount(run.cost.macs), note))
    if (loss := last_loss(run)) is not None:
        pruned = run.losses.get("pruned")
        note = (
            f"{decimal(pruned, 3)} right after pruning"
            if pruned is not None and "stage2" in run.losses
            else ""
        )
        shown.append(Tile("validation loss", decimal(loss, 3), note))
    if speed is not None and str(run.model) in speed.factors:
        own, teacher = speed.factors[str(run.model)], speed.factors.get(run.teacher)
        note = f"{teacher / own:.1f} × as fast as the teacher" if teacher else ""
        shown.append(Tile("compute for 1 s of audio", f"{1000 * own:.1f} ms", note))
    return shown


def _size_tile(label: str, run: RunRecord, loss: float | None = None) -> Tile:
    if run.cost is None:
        return Tile(label, "–", run.state)
    before = run.teacher_cost
    notes = [_of(run.cost.parameters, before.parameters)] if before else []
    notes += [] if loss is None else [f"loss {decimal(loss, 3)}"]
    return Tile(label, amount(run.cost.parameters), " · ".join(notes))


def _of(after: int, before: int) -> str:
    return f"{100 * after / before:.1f} % of {amount(before)}"


def cost(runs: NamedRuns, speed: MeasuredSpeed | None) -> Section:
    """Return the cost of the teachers and of the runs' models, and exported files."""
    seconds = sorted({run.seconds for _, run in runs})
    length = f" of {seconds[0]:g}\N{NO-BREAK SPACE}s" if len(seconds) == 1 else ""
    head = ["", "parameters", "of the teacher", f"MACs{length}", "of the teacher", "SUPERB MACs", "weights"]
    head += ["ms for 1 s of audio", "× real time"] if speed else []
    rows, strong = [], set()
    for teacher, group in _by_teacher(runs).items():
        before = next((run.teacher_cost for _, run in group if run.teacher_cost), None)
        if before is not None:
            cells = [*_cost_cells(before, before), *_size_cells(None), *_speed_cells(speed, teacher)]
            rows.append([Cell(teacher or "teacher", "teacher"), *cells])
        for name, run in group:
            strong.add(len(rows))
            cells = [*_cost_cells(run.cost, run.teacher_cost), *_size_cells(run)]
            title = Cell(name, "" if run.state == "finished" else run.state)
            rows.append([title, *cells, *_speed_cells(speed, str(run.model))])
    blocks: list[Block] = [PageTable(head, rows, frozenset(strong))]
    if speed is None:
        blocks.append(Paragraph(NOT_MEASURED))
    else:
        blocks += [Paragraph(speed.conditions), *map(missing, speed.faults)]
    return Section("cost", "Cost", [*blocks, *_exports(runs)])


def _by_teacher(runs: NamedRuns) -> dict[str, list[tuple[str, RunRecord]]]:
    groups: dict[str, list[tuple[str, RunRecord]]] = {}
    for name, run in runs:
        groups.setdefault(run.teacher, []).append((name, run))
    return groups


def _cost_cells(own: Cost | None, teacher: Cost | None) -> Iterator[Cell]:
    """Yield parameters and MACs, each with its share of the teacher's."""
    for name, unit, letter in (("parameters", 1e6, "M"), ("macs", 1e9, "G")):
        value, whole = getattr(own, name, None), getattr(teacher, name, None)
        yield UNKNOWN if value is None else Cell(f"{value / unit:,.3f} {letter}")
        share = value / whole if value is not None and whole else None
        yield UNKNOWN if share is None else Cell(f"{100 * share:.1f} %", share=min(share, 1.0))


def _size_cells(run: RunRecord | None) -> Iterator[Cell]:
    """Yield SUPERB's MACs and the size of the weights, which are not recorded of teachers."""
    shape, size = (run.shape, run.weights_bytes) if run else (None, None)
    yield UNKNOWN if shape is None else Cell(amount(sum(superb_macs(shape).values())))
    yield UNKNOWN if size is None else Cell(f"{size / 1e6:.1f} MB")


def _speed_cells(speed: MeasuredSpeed | None, model: str) -> list[Cell]:
    """Return time and speed of a model; nothing if no model was timed."""
    if speed is None:
        return []
    factor = speed.factors.get(model)
    return [Cell(f"{1000 * factor:.2f}"), Cell(f"{1 / factor:.0f}")] if factor else [UNKNOWN, UNKNOWN]


def _exports(runs: NamedRuns) -> Iterator[Block]:
    rows = [
        [
            Cell(file.name, name),
            Cell(file.precision),
            Cell(f"{file.bytes / 1e6:.1f} MB"),
            Cell(f"{1000 * file.factor:.2f}"),
            Cell("–" if file.ratio is None else f"{file.ratio:.2f}"),
            Cell(f"{file.error:.2%}"),
        ]
        for name, run in runs
        for file in exported_files(run)
    ]
    if rows:
        yield Paragraph("Exported files in the directories of the runs, as their reports state:")
        head = ["file", "precision", "size", "ms for 1 s of audio", "of the time in torch", "mean error"]
        yield PageTable(head, rows)


def units(runs: NamedRuns) -> Section:
    """Return pictures of the units that each layer kept, and lists of its heads."""
    blocks: list[Block] = []
    for name, run in runs:
        if run.units is None or run.shape is None:
            blocks.append(
                missing(f"{name}: no units to show, as it has no model yet or none that can be read.")
            )
            continue
        figure = units_figure(run.units, run.teacher_units)
        title = name if len(runs) > 1 else ""
        blocks.append(Picture.of(figure, f"Units that each layer of {name} kept", title))
        rows = [
            [Cell(str(index)), Cell(*_heads(ids)), Cell("none" if width is None else f"{width:,}")]
            for index, (ids, width) in enumerate(zip(run.shape.heads, run.shape.ffn, strict=True), start=1)
        ]
        table = PageTable(["layer", "heads", "feed-forward units"], rows)
        blocks.append(Folded(f"Heads by their ids{f', {name}' if title else ''}", table))
    return Section("units", "What was kept", blocks)


def _heads(ids: tuple[int, ...] | None) -> tuple[str, str]:
    if ids is None:
        return "none", "no attention"
    return str(len(ids)), "ids " + " ".join(map(str, ids)) if ids else "only the output bias"


def training(runs: NamedRuns) -> Section:
    """Return the curves of each run, and the losses after its steps."""
    blocks: list[Block] = []
    if len(runs) > 1:
        blocks.append(Picture.of(comparison_figure(runs), "Validation loss of all runs"))
    names = [key for key in LOSSES if any(key in run.losses for _, run in runs)]
    if names:
        sparsity = any(run.results.get("sparsity") for _, run in runs)
        head = [
            "validation loss",
            *(LOSSES[key] for key in names),
            *(["removed by the gates"] if sparsity else []),
        ]
        rows = [
            [
                Cell(name),
                *(Cell(decimal(run.losses[key], 4)) if key in run.losses else UNKNOWN for key in names),
                *([Cell(*_sparsity(run))] if sparsity else []),
            ]
            for name, run in runs
        ]
        blocks.append(PageTable(head, rows))
    if len(runs) > 1:
        blocks.append(Paragraph("Losses compare between runs of one teacher and one objective only."))
    curves = [
        Picture.of(
            training_figure(run.stage1, run.stage2),
            f"Loss and sparsity of {name} over time",
            name if len(runs) > 1 else "",
        )
        for name, run in runs
        if run.stage1 or run.stage2
    ]
    blocks += [Gallery(curves)] if curves else []
    blocks += _missing((name, text) for name, run in runs for text in run.missing)
    for name, run in runs:
        skipped = sum(rows[-1].get("skipped", 0) for rows in (run.stage1, run.stage2) if rows)
        if skipped:
            blocks.append(
                Paragraph(f"{name}: {skipped:g} updates were skipped for values that are not finite.")
            )
    return Section("training", "Training", blocks)


def _missing(texts: Iterable[tuple[str, str]]) -> list[Paragraph]:
    """Return a paragraph on each part that is missing, with the names of all runs that lack it."""
    names: dict[str, list[str]] = {}
    for name, text in texts:
        names.setdefault(text, []).append(name)
    return [missing(f"{', '.join(lacking)}: {text}.") for text, lacking in names.items()]


def _sparsity(run: RunRecord) -> tuple[str, str]:
    """Return the expected sparsity of each count, and its target."""
    rows = section(run.results, "sparsity")
    try:
        expected = ", ".join(f"{100 * row['expected']:.2f} %" for row in rows.values())
        targets = ", ".join(f"{100 * row['target']:.2f} % {count}" for count, row in rows.items())
    except (KeyError, TypeError, ValueError, OverflowError):
        return "–", ""
    return (expected, f"target {targets}") if rows else ("–", "")


def repetition(
    runs: NamedRuns, command: str, score_commands: Sequence[str], versions: Sequence[str]
) -> Section:
    """Return commands, environments and configurations.

    Args:
        runs: the runs.
        command: that makes the page.
        score_commands: that made the scores.
        versions: of the packages that made the scores.
    """
    lines = [
        f"s3prl-dphubert compress {shlex.quote(str(run.folder / CONFIG))} --out NEW"
        for _, run in runs
        if run.config
    ]
    blocks: list[Block] = [Listing("\n".join([*lines, command]))]
    if score_commands:
        blocks.append(Listing("\n".join(score_commands), "Commands that made the scores"))
    columns = [
        (name if len(runs) == 1 and not stage else f"{name}, {stage}" if len(runs) > 1 else stage, values)
        for name, run in runs
        for stage, values in run.environments.items()
    ]
    if columns:
        keys = dict.fromkeys(key for _, values in columns for key in values)
        rows = [[Cell(key), *(Cell(str(values.get(key, "–"))) for _, values in columns)] for key in keys]
        blocks.append(PageTable(["environment", *(name for name, _ in columns)], rows, is_text=True))
    unknown = "no environment is recorded, as in runs of earlier versions"
    blocks += _missing((name, unknown) for name, run in runs if not run.environments)
    if versions:
        blocks.append(Paragraph(f"Scores were made with {'; '.join(versions)}."))
    for name, run in runs:
        if run.config:
            text = yaml.safe_dump(dict(run.config), sort_keys=False, allow_unicode=True)
            blocks.append(Listing(text, f"Configuration of {name}"))
    return Section("repeat", "Environment and commands", blocks)
