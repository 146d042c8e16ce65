"""Recorded speech from Debian packages, gathered as 16 kHz mono FLAC.

``python -m s3prl_dphubert.hubert_mini.speech DEB_DIR OUT_DIR`` reads the ``.deb`` files that ``apt-get download``
left in ``DEB_DIR`` and writes ``OUT_DIR/<package>/<clip>.flac`` and ``OUT_DIR/speech.tsv`` (path, seconds,
package, licence). Nothing is installed or executed, and no audio leaves the machine. Needs PyAV.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from ..errors import DataError
from ..free_superb.sources import amazon_queen
from ..free_superb.sources.recordings import QUEEN, SOURCES, Source, clips, convert_all

HELD_OUT = re.compile(rf"^{QUEEN}/(11|18|19|20|21|22|24|37|38|64|75|76|84)....P.\.flac$")
"""Clips of four characters of the game (Faye, Chief, Naomi, Henry), kept from training for the probe."""


def queen_clips(archive: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield (name, MP3 bytes) of each spoken line in the data file of the game, without sound effects."""
    for name, data in amazon_queen.entries(archive):
        if name.endswith(".SB") and not name.endswith("SSSS.SB"):  # SSSS marks an effect
            yield name.removesuffix(".SB"), data


def gather(source: Source, deb_dir: Path, out: Path) -> list[tuple[str, float]]:
    """Convert the clips of one package; returns path below ``out`` and seconds of each.

    Raises:
        DataError: ``deb_dir`` does not hold the package, or it is damaged.
    """
    debs = sorted(deb_dir.glob(f"{source.package}_*.deb"))
    if not debs:
        raise DataError(f"{deb_dir}: holds no {source.package}_*.deb; apt-get download {source.package}")
    converted = convert_all(clips(source, debs[-1], queen_clips), source, out / source.package)
    return [(f"{source.package}/{name}.flac", seconds) for name, seconds in converted if seconds]


def main(argv: list[str] | None = None) -> int:
    """Gather the speech of all packages; returns the exit code."""
    parser = argparse.ArgumentParser(description="Gather recorded speech from Debian packages.")
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
