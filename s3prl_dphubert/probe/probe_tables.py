"""Tables of probes in Markdown: scores of models, paired differences, and the check of an order."""

from __future__ import annotations

from collections.abc import Sequence

from ..superb.scoring.uncertainty import NO_CONCLUSION, Estimate
from ..utils.markdown import cell, table
from .comparison import ProbeDifference, ProbeOrder
from .probe_record import BEST_LAYER, HEADS, METRICS, PROBES, ProbeRecord, direction


def scores_table(records: Sequence[ProbeRecord]) -> str:
    """Return scores ± standard errors in percent, one column for each model."""
    rows = [["parameters, M", *(f"{(record.facts.get('parameters') or 0) / 1e6:.3f}" for record in records)]]
    for probe in PROBES:
        for head in HEADS:
            scores = [record.score(probe, head) for record in records]
            if any(scores):
                cells = (with_error(score.estimate) if score else "–" for score in scores)
                rows.append([f"{heading(probe)}, {head}", *cells])
        if any(record.score(probe, BEST_LAYER) for record in records):
            rows.append([f"{probe}, layer chosen", *(_layers(record, probe) for record in records)])
    for name, kind in (("minutes", "seconds"), ("minutes of CPU", "cpu_seconds")):
        rows.append([name, *(f"{sum(getattr(record, kind).values()) / 60:.1f}" for record in records)])
    return table(["", *(cell(record.model) for record in records)], rows)


def differences_table(differences: Sequence[ProbeDifference]) -> str:
    """Return paired differences with their 95 % intervals and conclusions."""
    rows = [
        [heading(each.probe), each.head, f"{each.estimate.value:+.2f}", interval(each.estimate), each.verdict]
        for each in differences
    ]
    first, second = cell(differences[0].first), cell(differences[0].second)
    return table(["probe", "head", f"{first} ahead of {second} by", "95 % interval", "conclusion"], rows)


def comparison_table(differences: Sequence[ProbeDifference]) -> str:
    """Return paired differences of several models from one, a column each; bold beyond chance.

    Args:
        differences: in percent, all from the same model.
    """
    columns = list(dict.fromkeys(each.first for each in differences))
    by_place = {(each.probe, each.head, each.first): each.estimate for each in differences}
    places = list(dict.fromkeys((each.probe, each.head) for each in differences))
    rows = []
    for probe, head in places:
        estimates = (by_place.get((probe, head, name)) for name in columns)
        cells = (_difference(estimate) if estimate else "–" for estimate in estimates)
        rows.append([f"{heading(probe)}, {head}", *cells])
    return table([f"ahead of {cell(differences[0].second)} by", *map(cell, columns)], rows)


def orders_table(orders: Sequence[ProbeOrder]) -> str:
    """Return the steps from each model to the next, and whether the probe ranks them as it must."""
    rows = []
    for each in orders:
        steps = (f"{step.estimate.value:+.2f} {interval(step.estimate)}" for step in each.steps)
        rows.append([heading(each.probe), each.head, *steps, "valid" if each.is_valid else "not valid"])
    heads = (f"{cell(step.second)} → {cell(step.first)}" for step in orders[0].steps)
    return table(["probe", "head", *heads, "order"], rows)


def interval(estimate: Estimate) -> str:
    """Return a 95 % interval as text."""
    return f"[{estimate.low:+.2f}, {estimate.high:+.2f}]"


def heading(probe: str) -> str:
    """Return the heading of a probe: metric, unit, and an arrow towards better values."""
    return f"{probe} ({METRICS[probe]} % {'↑' if direction(probe) > 0 else '↓'})"


def with_error(estimate: Estimate) -> str:
    """Return a score with its standard error as text."""
    return f"{estimate.value:.1f} ± {estimate.standard_error:.1f}"


def _difference(estimate: Estimate) -> str:
    text = f"{estimate.value:+.2f}"
    text = text if estimate.conclusion == NO_CONCLUSION else f"**{text}**"
    return f"{text} {interval(estimate)}"


def _layers(record: ProbeRecord, probe: str) -> str:
    score = record.score(probe, BEST_LAYER)
    layers = score.details.get("layer", []) if score else []
    return ", ".join(map(str, sorted(set(layers)))) or "–"
