"""Constants that all packages share."""

SAMPLE_RATE = 16_000
"""Samples per second of all audio that models take."""
