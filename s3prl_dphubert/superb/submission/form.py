"""The form of a submission; some of its fields can be filled in from a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from urllib.parse import urlparse

from ...errors import ConfigError

TRACKS = ("constrained", "less constrained", "unconstrained")
_LENGTHS = {"submitName": 60, "modelDesc": 300, "inputFormat": 300, "corpus": 300, "paramDesc": 300}
_OPTIONAL = ("modelURL", "fineTunedParam", "taskSpecParam")


@dataclass(frozen=True)
class Form:
    """Fields of the site's form, by its own names; empty ones are still to be filled in.

    Args:
        submitName: at most 60 characters on the server, 20 in the form of the page.
        modelURL: of github.com, or empty.
        modelDesc: at most 300 characters, as the next three.
        stride: of the upstream in ms, 0 to 100.
        inputFormat: what the upstream takes.
        corpus: what it was trained on.
        paramDesc: how tasks share parameters.
        macs: of all 32 utterances; then of each bucket.
        macsShort: of the short ones.
        macsMedium: of the medium ones.
        macsLong: of the long ones.
        macsLonger: of the longest.
        paramShared: parameters of the upstream.
        fineTunedParam: parameters that are fine-tuned.
        taskSpecParam: parameters of single tasks.
        track: ``constrained``, ``less constrained`` or ``unconstrained``.

    Raises:
        ConfigError: listing all that the site would refuse.
    """

    submitName: str = ""
    modelURL: str = ""
    modelDesc: str = ""
    stride: int | None = None
    inputFormat: str = "waveform"
    corpus: str = ""
    paramDesc: str = "All tasks share one frozen upstream."
    macs: int | None = None
    macsShort: int | None = None
    macsMedium: int | None = None
    macsLong: int | None = None
    macsLonger: int | None = None
    paramShared: int | None = None
    fineTunedParam: int | None = None
    taskSpecParam: int | None = None
    track: str = "constrained"

    def __post_init__(self) -> None:
        faults = [
            f"{name} has {len(getattr(self, name))} characters, allowed: {most}"
            for name, most in _LENGTHS.items()
            if len(getattr(self, name)) > most
        ]
        if self.modelURL and urlparse(self.modelURL).netloc != "github.com":
            faults.append(f"modelURL is {self.modelURL!r}, allowed: https://github.com/…, or nothing")
        if self.stride is not None and not 0 <= self.stride <= 100:
            faults.append(f"stride is {self.stride}, allowed: 0 to 100 ms")
        if self.track not in TRACKS:
            faults.append(f"track is {self.track!r}, allowed: {', '.join(TRACKS)}")
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, int) and value < 0:
                faults.append(f"{f.name} is {value}, allowed: 0 or more")
        ConfigError.raise_for("submission", faults)

    def missing(self) -> list[str]:
        """Return the required fields that are empty."""
        return [
            f.name for f in fields(self) if f.name not in _OPTIONAL and getattr(self, f.name) in ("", None)
        ]

    def text(self) -> str:
        """Format the form as lines to copy from."""
        width = max(len(f.name) for f in fields(self))
        lines = []
        for f in fields(self):
            value = getattr(self, f.name)
            empty = "" if f.name in _OPTIONAL else "(to fill in)"
            lines.append(f"{f.name:<{width}}  {empty if value in ('', None) else value}".rstrip())
        if len(self.submitName) > 20:
            lines.append("note: the page's form takes 20 characters of submitName, the server 60")
        return "\n".join(lines)


def fields_of_checkpoint(path: Path) -> dict[str, int]:
    """Compute stride (ms), parameters and MACs of each bucket from a checkpoint.

    Raises:
        CheckpointError: it cannot be loaded.
        ConfigError: its stride is no whole number of ms.
    """
    from ...checkpoints.load import load_model
    from ...model.cost import parameters, superb_macs

    config = load_model(path).config
    samples = config.stride
    if samples % 16:
        raise ConfigError(f"{path}: its stride is {samples} samples, allowed: whole ms, as the site asks for")
    buckets = superb_macs(config)
    named = {f"macs{bucket.capitalize()}": int(count) for bucket, count in buckets.items()}
    return {
        "stride": samples // 16,
        "macs": sum(named.values()),
        **named,
        "paramShared": int(parameters(config)),
    }
