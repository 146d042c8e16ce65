"""Probes on the page of FreeSUPERB results: models of several seeds beside floors, and paired differences."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..errors import ConfigError
from ..probe.comparison import ProbeDifference, differences, orders
from ..probe.probe_record import HEADS, PROBES, ProbeRecord, read_all
from ..probe.probe_tables import comparison_table, heading, orders_table, with_error
from ..superb.scoring.uncertainty import HIGHER, LOWER
from ..utils import markdown


@dataclass(frozen=True)
class ProbedModels:
    """Models that were probed on the same corpus.

    Attributes:
        models: name -> records of the models that a recipe made, one for each seed.
        chain: names of models of known quality, the worst first; none for no check of the probes.
        baseline: name of the model that the others are compared with.
        compared: names of the models that are compared with it.
    """

    models: Mapping[str, Sequence[ProbeRecord]]
    chain: Sequence[str] = ()
    baseline: str = ""
    compared: Sequence[str] = ()

    @classmethod
    def read(
        cls, folders: Sequence[Path], chain: Sequence[str] = (), baseline: str = "",
        compared: Sequence[str] | None = (),
    ) -> ProbedModels:  # fmt: skip
        """Read the records in folders; those of one model differ in their seeds.

        Args:
            folders: of the records.
            chain: as in the class.
            baseline: likewise.
            compared: likewise; ``None`` for all models but the baseline.

        Raises:
            ConfigError: a model that is named has no record.
            ResultError: there is no record, one is damaged, or two are of different corpora.
        """
        models: dict[str, list[ProbeRecord]] = {}
        for record in read_all(folders):
            models.setdefault(record.model, []).append(record)
        compared = [name for name in models if name != baseline] if compared is None else compared
        named = [*chain, *([baseline] if compared else []), *compared]
        if missing := [name for name in named if name not in models]:
            raise ConfigError(f"{folders[0]}: holds no probes of {', '.join(missing)}")
        return cls(models, chain, baseline, compared)

    @cached_property
    def differences(self) -> list[ProbeDifference]:
        """Differences of the compared models from the baseline, positive where the baseline is worse."""
        baseline = self.models.get(self.baseline, [])
        return [each for name in self.compared for each in differences(self.models[name], baseline)]

    def section(self, title: str, picture: str = "") -> str:
        """Return the section of the page as Markdown.

        Args:
            title: its heading.
            picture: name of the image of :meth:`draw`; empty for none.
        """
        parts = [f"## {title}", self._scores()]
        if self.chain:
            ordered = orders([self.models[name][0] for name in self.chain])
            parts += ["A probe counts if it ranks models of known quality as it must:", orders_table(ordered)]
        if self.differences:
            parts += [f"![Differences in every probe]({picture})"] if picture else []
            parts += [self._counts(), comparison_table(self.differences)]
            parts.append("With 95 % intervals by a paired bootstrap over voices; bold beyond chance.")
        return "\n\n".join(parts)

    def draw(self, target: Path) -> None:
        """Draw the differences as a forest plot, PNG."""
        from ..superb.report.forest_plot import ForestRow, forest_plot

        rows = [
            ForestRow(f"{each.probe}, {each.head}", each.first, each.estimate)
            for each in sorted(self.differences, key=lambda each: (PROBES.index(each.probe), each.head))
        ]
        sides = (f"{self.baseline} better", "better")
        forest_plot(rows, target, f"Beside {self.baseline}, points of percent", sides)

    def _scores(self) -> str:
        size = ["parameters, M"]
        size += [f"{(records[0].facts.get('parameters') or 0) / 1e6:.3f}" for records in self.models.values()]
        rows = [
            [f"{heading(probe)}, {head}", *(_score(each, probe, head) for each in self.models.values())]
            for probe in PROBES
            for head in HEADS
        ]
        note = "With several seeds (their number in brackets), mean ± standard deviation over them; else ± "
        note += "standard error over voices."
        return markdown.table(["", *map(markdown.cell, self.models)], [size, *rows]) + f"\n\n{note}"

    def _counts(self) -> str:
        """Say in how many probes each model is ahead of the baseline."""
        lines = []
        for name in self.compared:
            estimates = [each.estimate for each in self.differences if each.first == name]
            ahead = sum(estimate.value > 0 for estimate in estimates)
            conclusions = [estimate.conclusion for estimate in estimates]
            lines.append(
                f"- {name}: ahead of {self.baseline} in {ahead} of {len(estimates)} probes; beyond "
                f"chance ahead in {conclusions.count(HIGHER)} and behind in {conclusions.count(LOWER)}."
            )
        return "\n".join(lines)


def _score(records: Sequence[ProbeRecord], probe: str, head: str) -> str:
    scores = [score for record in records if (score := record.score(probe, head))]
    values = [score.estimate.value for score in scores]
    if len(values) > 1:
        return f"{statistics.fmean(values):.1f} ± {statistics.stdev(values):.1f} ({len(values)})"
    return with_error(scores[0].estimate) if scores else "–"
