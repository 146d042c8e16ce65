"""Learning rates over the updates."""

from __future__ import annotations


def linear_schedule(update: int, base: float, warmup: int, updates: int) -> float:
    """Learning rate of an update counted from 0: linear to ``base``, then linear to 0.

    The first update has ``base / warmup``, update ``warmup - 1`` has ``base`` and the last
    one 0, as in the published recipe.
    """
    step = update + 1
    if step <= warmup:
        return base * (step / warmup)
    if step >= updates:
        return 0.0
    return base * ((updates - step) / (updates - warmup))
