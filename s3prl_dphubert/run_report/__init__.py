"""One self-contained HTML page about compression runs: units, curves, cost, speed and scores."""
