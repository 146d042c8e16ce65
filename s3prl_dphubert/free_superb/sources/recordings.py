"""Debian packages of recorded speech, and the decoding of their clips."""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
import soxr
from tqdm import tqdm

from ...constants import SAMPLE_RATE
from ...utils.files import replacing
from . import deb

QUEEN = "flight-of-the-amazon-queen"
SHORTEST = 0.08  # seconds of a clip that may be speech
QUIETEST = 1e-3  # root mean square of a clip that may be speech
PARENT_CHECK = 1.0  # seconds between two checks for whether the parent process is alive


@dataclass(frozen=True)
class Source:
    """One Debian package with recorded speech.

    Attributes:
        package: name in Debian's archive.
        licence: licence of the recordings, as stated by the package.
        pattern: regular expression that matches the paths of the speech clips.
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
    Source(QUEEN, "freeware", r"/queen\.1c$", "queen"),
    Source("gcin-voice", "GPL-3 or LGPL-3 (voice 3), CC-BY-3.0 (voice 5)", r"/ogg/.*/[35]\.ogg$"),
    Source("hedgewars-data", "GPL-2", r"/Sounds/voices/.*\.ogg$"),
    Source("klettres-data", "GPL-2+", r"/klettres/.*/.*/.*\.ogg$"),
    Source("ktuberling-data", "GPL-2+", r"/sounds/(?!sr@).*/(?!.*\.theme\.ogg).*\.(ogg|wav)$"),
    Source("pocketsphinx-testdata", "BSD-2", r"/test/data/(librivox|cards)/.*\.wav$"),
    Source("tuxpaint-stamps-default", "GPL-2", r"_desc[^/]*\.(ogg|wav)$"),
)


def clips(
    source: Source, package: Path, read_archive: Callable[[bytes], Iterable[tuple[str, bytes]]]
) -> Iterator[tuple[str, bytes]]:
    """Yield (clip name, encoded bytes) of the recordings in a Debian package, in the order of the package.

    Args:
        source: description of the package.
        package: the ``.deb``.
        read_archive: returns such pairs for the data file of a game, where the decoder is ``queen``.

    Raises:
        DataError: the file is not a Debian package, or is damaged.
    """
    for path, data in deb.files(package, source.pattern):
        if source.decoder == "queen":
            yield from read_archive(data)
        else:
            yield path.rpartition(".")[0].removeprefix("/usr/share/").replace("/", "__"), data


def decode(data: bytes, decoder: str) -> tuple[np.ndarray, int]:
    """Decode one clip; returns mono float32 samples (T,) and the sample rate in Hz."""
    if decoder in ("g722", "gsm"):
        import av

        with av.open(io.BytesIO(data), "r", format=decoder) as container:
            frames = [frame.to_ndarray().ravel() for frame in container.decode(audio=0)]
        return np.concatenate(frames).astype(np.float32) / 32768, 16_000 if decoder == "g722" else 8_000
    samples, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    return samples.mean(axis=1), rate


def convert(clip: tuple[str, bytes], decoder: str, out: Path) -> tuple[str, float]:
    """Write one clip as 16 kHz FLAC below ``out``; returns its name and seconds, 0.0 if it is not speech."""
    name, data = clip
    path = out / f"{name}.flac"
    try:
        samples, rate = decode(data, decoder)
    except (RuntimeError, ValueError, OSError):
        return name, 0.0
    samples = soxr.resample(samples, rate, SAMPLE_RATE)
    if len(samples) < SHORTEST * SAMPLE_RATE or np.sqrt(np.mean(samples**2)) < QUIETEST:
        return name, 0.0
    samples = samples * min(1.0, 0.999 / float(np.abs(samples).max()))
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished:
        soundfile.write(unfinished, np.round(samples * 32767).astype(np.int16), SAMPLE_RATE, format="FLAC")
    return name, len(samples) / SAMPLE_RATE


def convert_all(encoded: Iterable[tuple[str, bytes]], source: Source, out: Path) -> list[tuple[str, float]]:
    """Convert the clips of one package in parallel by :func:`convert`; returns its results."""
    pairs = list(encoded)
    job = partial(convert, decoder=source.decoder, out=out)
    with worker_pool() as workers:
        converted = workers.map(job, pairs, chunksize=16)
        return list(tqdm(converted, desc=source.package, total=len(pairs), unit="clip"))


def worker_pool() -> ProcessPoolExecutor:
    """Return a pool with one process per core, which end when this process does, even if it is killed.

    Otherwise the workers of a killed process, each of which holds the other end of its own pipe, would
    wait for work forever.
    """
    return ProcessPoolExecutor(initializer=_end_with_parent)


def _end_with_parent() -> None:
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_CHECK)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
