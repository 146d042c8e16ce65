"""Speech enhancement on VoiceBank-DEMAND."""

from __future__ import annotations

from ..metrics.parsers import Written
from ..submission import prediction_formats
from .audio_lists import mixtures
from .spec import HIGHER, SUPERB_SG, Metric, Prediction, SuperbTask

MEANS = "test_metrics.txt"
METRICS = (
    Metric("pesq", "PESQ", "", HIGHER, Written(MEANS, "pesq"), fbank=2.55, sota=2.64),
    Metric("stoi", "STOI", "%", HIGHER, Written(MEANS, "stoi", 100), fbank=93.6, sota=94.2),
)

TASK = SuperbTask(
    name="SE",
    title="speech enhancement",
    track=SUPERB_SG,
    position=11,
    downstream="enhancement_stft",  # enhancement_stft2 is better and not comparable
    metrics=METRICS,
    checkpoint="best-states-dev.ckpt",
    shares_batches=False,  # its loaders have no DistributedSampler
    packages=("h5py", "librosa", "scipy", "pesq", "pystoi"),
    audio=mixtures,
    predictions=(Prediction("se_public/metrics.txt", MEANS, prediction_formats.metric_means(METRICS)),),
)
