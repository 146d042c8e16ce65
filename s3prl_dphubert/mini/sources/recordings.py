"""Debian packages with recorded speech, and how their clips are decoded."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from ...constants import SAMPLE_RATE
from ...utils.files import replacing


@dataclass(frozen=True)
class Source:
    """One Debian package with recorded speech.

    Args:
        package: name in Debian's archive.
        licence: licence of the recordings as the package states it.
        pattern: regular expression that the paths of its speech clips match.
        decoder: ``soundfile``, or a raw format that FFmpeg names (``g722``, ``gsm``), or
            ``queen`` for the clips inside that game's single data file.
    """

    package: str
    licence: str
    pattern: str
    decoder: str = "soundfile"


_PROMPT = r"/sounds/(?!.*/(silence/|beep|beeperr|ascending-2tone|descending-2tone|tt-|tone)).*\.%s$"


SOURCES: tuple[Source, ...] = (
    Source("alsa-utils", "GPL-2", r"/sounds/alsa/(?!Noise).*\.wav$"),
    *(
        Source(f"asterisk-core-sounds-{language}-g722", licence, _PROMPT % "g722", "g722")
        for language, licence in {
            "en": "CC-BY-SA-3.0",
            "es": "CC-BY-SA-3.0",
            "fr": "CC-BY-SA-3.0",
            "it": "CC-BY-3.0",
            "ru": "CC-BY-3.0",
        }.items()
    ),
    Source("asterisk-prompt-es-co", "GPL-2", _PROMPT % "gsm", "gsm"),
    Source("asterisk-prompt-fr-armelle", "BSD-like", _PROMPT % "gsm", "gsm"),
    Source("asterisk-prompt-it-menardi-wav", "CC-BY-SA-3.0-IT", _PROMPT % "wav"),
    Source("festvox-ru", "BSD-like", r"/msu_ru_nsh_clunits/wav/.*\.wav$"),
    Source("fillets-ng-data-cs", "GPL-2", r"/sound/.*\.ogg$"),
    Source("fillets-ng-data-nl", "GPL-2", r"/sound/.*\.ogg$"),
    Source("flight-of-the-amazon-queen", "freeware", r"/queen\.1c$", "queen"),
    Source("gcin-voice", "GPL-3 or LGPL-3 (voice 3), CC-BY-3.0 (voice 5)", r"/ogg/.*/[35]\.ogg$"),
    Source("hedgewars-data", "GPL-2", r"/Sounds/voices/.*\.ogg$"),
    Source("klettres-data", "GPL-2+", r"/klettres/.*/.*/.*\.ogg$"),
    Source("ktuberling-data", "GPL-2+", r"/sounds/(?!sr@).*/(?!.*\.theme\.ogg).*\.(ogg|wav)$"),
    Source("pocketsphinx-testdata", "BSD-2", r"/test/data/(librivox|cards)/.*\.wav$"),
    Source("tuxpaint-stamps-default", "GPL-2", r"_desc[^/]*\.(ogg|wav)$"),
)


def queen_entries(archive: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of everything in the data file of Flight of the Amazon Queen.

    The table at byte 13 counts the entries; each holds a name of 12 bytes, a bundle byte,
    offset and size (big-endian).
    """
    (count,) = struct.unpack_from(">H", archive, 13)
    for index in range(count):
        raw, _, offset, size = struct.unpack_from(">12sBII", archive, 15 + 21 * index)
        yield raw.split(b"\0")[0].decode("ascii"), archive[offset : offset + size]


def decode(data: bytes, decoder: str) -> tuple[np.ndarray, int]:
    """Decode one clip to (mono float32 samples (T,), sample rate in Hz)."""
    if decoder in ("g722", "gsm"):
        import av

        with av.open(io.BytesIO(data), "r", format=decoder) as container:
            frames = [frame.to_ndarray().ravel() for frame in container.decode(audio=0)]
        return np.concatenate(frames).astype(np.float32) / 32768, 16_000 if decoder == "g722" else 8_000
    samples, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    return samples.mean(axis=1), rate


def convert(clip: tuple[str, bytes], decoder: str, out: Path) -> tuple[str, float]:
    """Write one clip as 16 kHz FLAC; returns (path, seconds) or (path, 0.0) if it is no speech."""
    name, data = clip
    path = out / f"{name}.flac"
    try:
        samples, rate = decode(data, decoder)
    except (RuntimeError, ValueError, OSError):
        return name, 0.0
    samples = soxr.resample(samples, rate, SAMPLE_RATE)
    if len(samples) < 0.08 * SAMPLE_RATE or np.sqrt(np.mean(samples**2)) < 1e-3:
        return name, 0.0
    samples = samples * min(1.0, 0.999 / float(np.abs(samples).max()))
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished:
        soundfile.write(unfinished, np.round(samples * 32767).astype(np.int16), SAMPLE_RATE, format="FLAC")
    return name, len(samples) / SAMPLE_RATE
