"""Sampling of training waveforms by s3prl's downstreams, as far as a cache of hidden states depends on it.

These are facts about s3prl's data sets, and the upstream needs them where no SUPERB task is known: users
start ``run_downstream`` with a cached upstream by hand, also on downstreams that SUPERB does not use. The
modules of ``superb/tasks`` quote them. A task whose downstream is not listed states in its own module whether
hidden states come again, and ``superb run`` obeys that.
"""

from __future__ import annotations

import sys

RANDOM_CROPS = {
    "voxceleb1": "cuts 8 s out of longer utterances at random",
    "sv_voxceleb1": "cuts 8 s out of longer utterances at random",
    "voxceleb2_ge2e": "cuts and draws utterances at random",
    "voxceleb2_amsoftmax_segment_eval": "cuts utterances at random",
    "quesst14_embedding": "shifts and pads words at random",
    "sws2013": "shifts words at random",
}
"""Downstream -> what it does to its training waveforms, so that none comes again."""

SIGHTINGS = {"speech_commands": 2}
"""Downstream that draws some waveforms at random among others that come again -> which time stores them.

Keyword spotting cuts its silence, a twelfth of what it trains on, out of long recordings."""


def cropping_downstream() -> str:
    """Return the downstream in this process that crops its training waveforms; empty if none does."""
    return next((name for name in RANDOM_CROPS if _is_loaded(name)), "")


def sightings() -> int:
    """Return at which occurrence an utterance is stored, for the downstream at work in this process."""
    return max((count for name, count in SIGHTINGS.items() if _is_loaded(name)), default=1)


def _is_loaded(downstream: str) -> bool:
    return f"s3prl.downstream.{downstream}.expert" in sys.modules
