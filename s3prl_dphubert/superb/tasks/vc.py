"""Voice conversion, any-to-one, to the four target speakers of VCC 2020's first task."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..metrics.parsers import CepstralDistortion, Printed
from .audio_lists import matching
from .spec import HIGHER, LOWER, SUPERB_SG, FeatureReuse, Metric, SuperbTask, TaskPart

SOURCES = ("SEF1", "SEF2", "SEM1", "SEM2")
PITCH = {  # target speaker -> lowest and highest pitch in Hz, as s3prl lists them
    "TEF1": (127, 405),
    "TEF2": (108, 361),
    "TEM1": (71, 227),
    "TEM2": (57, 182),
}
TARGETS = tuple(PITCH)


def audio(config: Mapping[str, Any]) -> dict[str, list[Path]]:
    """Return the utterances of the target speaker and of all sources."""
    expert = config["downstream_expert"]
    speakers = (expert["trgspk"], *SOURCES)
    return {name: matching(Path(expert["datarc"]["data_root"], name), "*.wav") for name in speakers}


def _evaluated(column: int) -> Printed:
    """Parser of one of the numbers that s3prl's ``evaluate.py`` prints and logs beside what it scores."""
    line = "Mean MCD, f0RMSE, f0CORR, DDUR, CER, WER, accept rate:" + " *" * column + " {}"
    return Printed(line, log="*/test/*wav/obj.log")


TASK = SuperbTask(
    name="VC",
    title="voice conversion",
    track=SUPERB_SG,
    position=14,
    downstream="a2o-vc-vcc2020",
    metrics=(
        Metric("mcd", "MCD", "dB", LOWER, CepstralDistortion(_evaluated(0), PITCH)),
        Metric("wer", "WER", "%", LOWER, _evaluated(5), optional=True),
        Metric("asv", "accepted", "%", HIGHER, _evaluated(6), optional=True),
    ),
    parts=tuple(TaskPart(speaker, override=f"downstream_expert.trgspk={speaker}") for speaker in TARGETS),
    checkpoint="states-*.ckpt",
    packages=("h5py", "librosa", "scipy", "sklearn=scikit-learn", "pyworld", "fastdtw"),
    reuse=FeatureReuse(reason="whole files; the sources are shared by all target speakers"),
    audio=audio,
)
