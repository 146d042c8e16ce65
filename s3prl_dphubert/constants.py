"""Numbers that every package agrees on."""

SAMPLE_RATE = 16_000
"""Samples a second of all audio that models see."""
