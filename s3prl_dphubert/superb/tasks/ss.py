"""Source separation on Libri2Mix."""

from __future__ import annotations

from ..metrics.parsers import Written
from ..submission import prediction_formats
from .audio_lists import mixtures
from .spec import HIGHER, SUPERB_SG, Metric, Prediction, SuperbTask

MEANS = "test_metrics.txt"
METRICS = (Metric("si_sdri", "SI-SDRI", "dB", HIGHER, Written(MEANS, "si_sdr"), fbank=9.2341, sota=10.4514),)

TASK = SuperbTask(
    name="SS",
    title="source separation",
    track=SUPERB_SG,
    position=12,
    downstream="separation_stft",  # separation_stft2 is better and not comparable
    metrics=METRICS,
    checkpoint="best-states-dev.ckpt",
    shares_batches=False,  # its loaders have no DistributedSampler
    packages=("h5py", "librosa", "scipy", "pesq", "pystoi"),
    audio=mixtures,
    predictions=(Prediction("ss_public/metrics.txt", MEANS, prediction_formats.metric_means(METRICS)),),
)
