"""Gather recorded speech from Debian packages as 16 kHz mono FLAC.

``python -m s3prl_dphubert.nano.speech DEB_DIR OUT_DIR`` reads the ``.deb`` files that
``apt-get download`` left in ``DEB_DIR`` and writes ``OUT_DIR/<package>/<clip>.flac`` and
``OUT_DIR/speech.tsv`` (path, seconds, package, licence). Nothing is installed and no
package is executed; no audio leaves the machine. Needs ``dpkg-deb`` and PyAV.
"""

from __future__ import annotations

import argparse
import io
import re
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
import soxr
from tqdm import tqdm

from ..files import replacing

SAMPLE_RATE = 16_000


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

HELD_OUT = re.compile(r"^flight-of-the-amazon-queen/(11|18|19|20|21|22|24|37|38|64|75|76|84)....P.\.flac$")
"""Four characters of one game (Faye, Chief, Naomi, Henry), kept from training for the probe."""


def queen_entries(archive: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of everything in the data file of Flight of the Amazon Queen.

    The table at byte 13 counts the entries; each holds a name of 12 bytes, a bundle byte,
    offset and size (big-endian).
    """
    (count,) = struct.unpack_from(">H", archive, 13)
    for index in range(count):
        raw, _, offset, size = struct.unpack_from(">12sBII", archive, 15 + 21 * index)
        yield raw.split(b"\0")[0].decode("ascii"), archive[offset : offset + size]


def queen_clips(archive: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield (name, MP3 bytes) of each spoken line in that file; names ending in ``SSSS`` are effects."""
    for name, data in queen_entries(archive):
        if name.endswith(".SB") and not name.endswith("SSSS.SB"):
            yield name.removesuffix(".SB"), data


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


def clips(source: Source, root: Path) -> Iterator[tuple[str, bytes]]:
    """Yield (clip name, encoded bytes) of an unpacked package, sorted by path."""
    pattern = re.compile(source.pattern)
    paths = sorted(p for p in root.rglob("*") if p.is_file() and not p.is_symlink())
    for path in (p for p in paths if pattern.search(p.as_posix())):
        if source.decoder == "queen":
            yield from queen_clips(path.read_bytes())
        else:
            relative = path.relative_to(root).with_suffix("").as_posix()
            yield relative.removeprefix("usr/share/").replace("/", "__"), path.read_bytes()


def gather(source: Source, deb_dir: Path, out: Path) -> list[tuple[str, float]]:
    """Convert the clips of one package; returns (path below ``out``, seconds) of each.

    Raises:
        FileNotFoundError: ``deb_dir`` holds no such package.
    """
    debs = sorted(deb_dir.glob(f"{source.package}_*.deb"))
    if not debs:
        raise FileNotFoundError(f"{deb_dir}: no {source.package}_*.deb; apt-get download {source.package}")
    folder = out / source.package
    with tempfile.TemporaryDirectory() as unpacked, ProcessPoolExecutor() as pool:
        subprocess.run(["dpkg-deb", "-x", str(debs[-1]), unpacked], check=True)
        job = partial(convert, decoder=source.decoder, out=folder)
        found = list(clips(source, Path(unpacked)))
        done = tqdm(pool.map(job, found, chunksize=16), total=len(found), desc=source.package)
        return [(f"{source.package}/{name}.flac", seconds) for name, seconds in done if seconds]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("deb_dir", type=Path)
    parser.add_argument("out_dir", type=Path)
    arguments = parser.parse_args(argv)
    rows = []
    for source in SOURCES:
        for path, seconds in gather(source, arguments.deb_dir, arguments.out_dir):
            rows.append(f"{path}\t{seconds:.3f}\t{source.package}\t{source.licence}\n")
    table = arguments.out_dir / "speech.tsv"
    table.write_text("path\tseconds\tpackage\tlicence\n" + "".join(rows), encoding="utf8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
