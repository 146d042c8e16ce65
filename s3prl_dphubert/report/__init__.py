"""Plots of what a run did."""

from .plots import plot_training, plot_units

__all__ = ["plot_training", "plot_units"]
