"""Fixtures of numbers that the published implementation computed."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
"""The checkout."""

GOLDEN = ROOT / "tests" / "golden"
GATED = ("hubert_gated", "hubert_gated_layers", "hubert_pre_norm_gated", "wavlm_gated")
