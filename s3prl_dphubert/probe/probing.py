"""Run of all probes on a model: hidden states once, then every probe under both heads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from ..errors import ResultError
from ..superb.scoring.uncertainty import Statistic, estimate
from ..utils.environment import processor, versions
from ..utils.files import temporary_folder
from ..utils.stopwatch import Stopwatch
from .aligned_corpus import AlignedCorpus
from .cross_validation import ClassificationProbe, HeadResult
from .layer_sources import LayerSource, open_source
from .pooled_states import PooledStates, durations, extract
from .probe_record import BEST_LAYER, LAYER_WEIGHTS, VERIFICATION, ProbeRecord, ProbeScore, file_name, finite
from .probe_samples import SPEAKERS, ProbeSamples, samples
from .verification import VerificationProbe, VerificationResult


@dataclass(frozen=True)
class ProbeSuite:
    """All probes that a corpus allows.

    Attributes:
        corpus: the recordings.
        durations: (U,) their lengths in seconds.
        samples: probe -> samples, the same for every model.
    """

    corpus: AlignedCorpus
    durations: np.ndarray
    samples: dict[str, ProbeSamples]

    @classmethod
    def of(cls, corpus: AlignedCorpus) -> ProbeSuite:
        """Read the headers of the recordings and list the samples.

        Raises:
            DataError: a recording is missing, fewer than two voices lie outside ``train``, or there is
                nothing to classify.
        """
        lengths = durations(corpus)
        probes = samples(corpus, lengths)
        for probe in probes.values():
            ClassificationProbe.of(probe, corpus)
        return cls(corpus, lengths, probes)

    def facts(self) -> dict[str, Any]:
        """Return name, digest and size of the corpus, for records."""
        counts = {name: {"samples": len(s), "classes": len(s.classes)} for name, s in self.samples.items()}
        return {
            "name": self.corpus.name,
            "sha256": self.corpus.sha256,
            "minutes": round(float(self.durations.sum()) / 60, 2),
            "voices": len(self.corpus.speakers),
            "voices_tested": list(self.corpus.unheard),
            "probes": counts,
        }

    def run(self, source: LayerSource, given: str, folder: Path, jobs: int = 1) -> ProbeRecord:
        """Probe a model.

        Args:
            source: the model.
            given: text that it was opened by.
            folder: existing folder, in which a temporary one holds the hidden states.
            jobs: recordings that are computed at a time.

        Raises:
            DataError: a recording cannot be read, or the model gives no finite hidden states.
        """
        run = _Run(self)
        with temporary_folder(folder / "states") as partial:
            with run.watch("hidden states"):
                states = extract(source, self.corpus, self.samples, partial, jobs)
            with tqdm(desc=f"{source.name}, heads", unit="head", total=2 * len(self.samples) + 2) as bar:
                run.bar = bar
                for name, probe in self.samples.items():
                    run.classify(ClassificationProbe.of(probe, self.corpus), states[name])
                if SPEAKERS in states:
                    run.verify(self.samples[SPEAKERS], states[SPEAKERS])
        return ProbeRecord(
            source.name,
            given,
            source.facts | {"layers": run.layers},
            self.facts(),
            tuple(run.scores),
            run.curves,
            run.chance,
            {name: round(each, 1) for name, each in run.watch.wall.items()},
            {name: round(each, 1) for name, each in run.watch.cpu.items()},
            {"processor": processor(), "threads": torch.get_num_threads(), **versions(["torch", "numpy"])},
        )


@dataclass
class _Run:
    """Results of one model so far."""

    suite: ProbeSuite
    watch: Stopwatch = field(default_factory=Stopwatch)
    scores: list[ProbeScore] = field(default_factory=list)
    curves: dict[str, list[list[float | None]]] = field(default_factory=dict)
    chance: dict[str, float] = field(default_factory=dict)
    layers: int = 0
    bar: tqdm | None = None

    @contextmanager
    def head(self, probe: str, head: str) -> Iterator[None]:
        """Time a head and advance the progress bar."""
        with self.watch(f"{probe}, {head}"):
            yield
        if self.bar is not None:
            self.bar.update()

    def classify(self, probe: ClassificationProbe, states: PooledStates) -> None:
        name, self.layers = probe.probe.name, states.layers
        with self.head(name, BEST_LAYER):
            single, curve = probe.by_layer(states)
        with self.head(name, LAYER_WEIGHTS):
            mixed = probe.by_weights(states)
        self._add(name, (single.accuracy, mixed.accuracy), (single, mixed), curve)
        self.chance[name] = round(probe.chance(), 3)

    def verify(self, probe: ProbeSamples, states: PooledStates) -> None:
        verification = VerificationProbe.of(probe, self.suite.corpus)
        if verification is None:
            return
        with self.head(VERIFICATION, BEST_LAYER):
            single, curve = verification.by_layer(states)
        with self.head(VERIFICATION, LAYER_WEIGHTS):
            mixed = verification.by_weights(states)
        self._add(VERIFICATION, (single.trials, mixed.trials), (single, mixed), curve)
        self.chance[VERIFICATION] = 50.0

    def _add(
        self,
        name: str,
        statistics: tuple[Statistic, Statistic],
        results: tuple[HeadResult | VerificationResult, HeadResult | VerificationResult],
        curve: list[Any],
    ) -> None:
        weights = {"weights": [round(each, 4) for each in results[1].weights]}
        details = results[0].choices, results[1].choices | weights
        for head, statistic, detail in zip((BEST_LAYER, LAYER_WEIGHTS), statistics, details, strict=True):
            self.scores.append(ProbeScore(name, head, statistic, detail))
        values = [estimate(each) for each in curve]
        self.curves[name] = [[finite(each.value), finite(each.standard_error)] for each in values]


def probe_sources(
    sources: Sequence[LayerRequest], suite: ProbeSuite, out: Path, jobs: int = 1
) -> Iterator[tuple[Path, ProbeRecord]]:
    """Probe models one after the other, and write a record of each; those that are there already are kept.

    Args:
        sources: the models.
        suite: the probes.
        out: folder of the records.
        jobs: recordings that are computed at a time.

    Yields:
        The path and the content of each record.

    Raises:
        DPHubertError: a model cannot be opened or run.
        ResultError: a record of that name is there, of another model or corpus.
    """
    out.mkdir(parents=True, exist_ok=True)
    for request in sources:
        path = out / file_name(request.name)
        source = request.open()
        if path.exists():
            record = ProbeRecord.read(path)
            same = record.facts.get("sha256"), record.corpus.get("sha256")
            if same != (source.facts["sha256"], suite.corpus.sha256):
                raise ResultError(
                    f"{path}: is there, of another model or corpus; choose another --out or --name"
                )
        else:
            record = suite.run(source, request.text, out, jobs)
            record.write(path)
        yield path, record


@dataclass(frozen=True)
class LayerRequest:
    """A source that is opened when its turn comes.

    Attributes:
        text: as for :func:`.open_source`.
        name: shown in reports.
        device: torch's name of the device that runs it.
    """

    text: str
    name: str
    device: str = "cpu"

    def open(self) -> LayerSource:
        """Load it."""
        return open_source(self.text, self.device, self.name)
