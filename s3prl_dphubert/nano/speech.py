"""Gather recorded speech from Debian packages as 16 kHz mono FLAC.

``python -m s3prl_dphubert.nano.speech DEB_DIR OUT_DIR`` reads the ``.deb`` files that
``apt-get download`` left in ``DEB_DIR`` and writes ``OUT_DIR/<package>/<clip>.flac`` and
``OUT_DIR/speech.tsv`` (path, seconds, package, licence). Nothing is installed and no
package is executed; no audio leaves the machine. Needs ``dpkg-deb`` and PyAV.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from tqdm import tqdm

from ..mini.sources.amazon_queen import entries
from ..mini.sources.recordings import SOURCES, Source, convert

HELD_OUT = re.compile(r"^flight-of-the-amazon-queen/(11|18|19|20|21|22|24|37|38|64|75|76|84)....P.\.flac$")
"""Four characters of one game (Faye, Chief, Naomi, Henry), kept from training for the probe."""


def queen_clips(archive: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield (name, MP3 bytes) of each spoken line in that file; names ending in ``SSSS`` are effects."""
    for name, data in entries(archive):
        if name.endswith(".SB") and not name.endswith("SSSS.SB"):
            yield name.removesuffix(".SB"), data


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
