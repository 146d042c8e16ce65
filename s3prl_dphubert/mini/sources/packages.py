"""Fetch Debian packages and check them: from a folder, from apt, or from a mirror by https."""

from __future__ import annotations

import csv
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from tqdm import tqdm

from ...errors import DataError
from ...utils.download import download
from ...utils.files import replacing
from ...utils.hashing import sha256_file

MIRRORS = (
    "https://deb.debian.org/debian",
    "https://snapshot.debian.org/archive/debian/20250520T000000Z",
)
"""Where packages are; the second keeps versions that the first has replaced."""

TIMEOUT = 60  # seconds without an answer


@dataclass(frozen=True)
class Package:
    """One version of a package, as Debian's signed index lists it.

    Attributes:
        name: of the package.
        version: the one whose recordings the benchmark is made of.
        bytes: size of the ``.deb``.
        sha256: of the ``.deb``.
        pool: its path on a mirror.
    """

    name: str
    version: str
    bytes: int
    sha256: str
    pool: str

    @property
    def file(self) -> str:
        """Its file name on a mirror."""
        return self.pool.rpartition("/")[2]


def table(path: Path) -> dict[str, Package]:
    """Name -> package of everything that the benchmark may need, from ``packages.tsv``."""
    with path.open(encoding="utf8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t")
        found = [Package(r["package"], r["version"], int(r["bytes"]), r["sha256"], r["pool"]) for r in rows]
    return {package.name: package for package in found}


def fetch(
    wanted: Iterable[Package], out: Path, debs: Path | None = None, mirrors: tuple[str, ...] = MIRRORS
) -> dict[str, Path]:
    """Bring packages into a folder; what is there and whole is not fetched again.

    Args:
        wanted: the packages.
        out: where downloads go.
        debs: a folder with ``.deb`` files, which are used where they lie; nothing is downloaded then.
        mirrors: asked in turn where there is no apt, or apt has another version.

    Returns:
        Name -> path of the ``.deb``.

    Raises:
        DataError: one is missing, cannot be fetched or is not the one that the table lists.
    """
    wanted = list(wanted)
    if debs is not None:
        return {package.name: _given(package, debs) for package in wanted}
    out.mkdir(parents=True, exist_ok=True)
    total = sum(package.bytes for package in wanted)
    with tqdm(desc="packages", unit="B", unit_scale=True, total=total, mininterval=0.5) as bar:
        for package in wanted:
            path = out / package.file
            if fault(package, path):
                _download(package, path, mirrors)
            bar.update(package.bytes)
    return {package.name: out / package.file for package in wanted}


def fault(package: Package, path: Path) -> str:
    """What is wrong with a file by its size and SHA-256, or nothing."""
    if not path.is_file():
        return "is not there"
    size = path.stat().st_size
    if size != package.bytes:
        return f"has {size} bytes, {package.name} {package.version} has {package.bytes}"
    found = sha256_file(path)
    if found != package.sha256:
        return f"has the sha256 {found}, {package.name} {package.version} has {package.sha256}"
    return ""


def _given(package: Package, debs: Path) -> Path:
    """The one file of a package in a folder; apt writes a version's colon as ``%3a``."""
    found = sorted(debs.glob(f"{package.name}_*.deb"))
    if not found:
        raise DataError(
            f"{debs}: holds no {package.name}_*.deb; apt-get download {package.name}={package.version}"
        )
    fitting = [path for path in found if path.stat().st_size == package.bytes]
    path = (fitting or found)[0]
    if wrong := fault(package, path):
        raise DataError(f"{path}: {wrong}; apt-get download {package.name}={package.version}")
    return path


def _download(package: Package, path: Path, mirrors: tuple[str, ...]) -> None:
    """Ask apt, then each mirror; the first that gives the right file wins."""
    faults = []
    if shutil.which("apt-get"):
        wrong = _from_apt(package, path)
        if not wrong:
            return
        faults.append(f"apt-get: {wrong}")
    for mirror in mirrors:
        url = f"{mirror}/{package.pool}"
        try:
            with replacing(path) as partial:
                download(url, partial, package.file, TIMEOUT)
                if wrong := fault(package, partial):
                    raise OSError(f"the file {wrong}")
            return
        except (OSError, HTTPException) as error:
            faults.append(f"{url}: {error}")
    raise DataError(f"{package.name} {package.version}: cannot be fetched ({'; '.join(faults)})")


def _from_apt(package: Package, path: Path) -> str:
    """Let apt download into a folder of its own; returns what it complained of, or nothing."""
    with tempfile.TemporaryDirectory(dir=path.parent, suffix=".part") as folder:
        command = ["apt-get", "download", f"{package.name}={package.version}"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        found = sorted(Path(folder).glob("*.deb"))
        if done.returncode or not found:
            return done.stderr.strip().rpartition("\n")[2] or f"exit code {done.returncode}"
        if wrong := fault(package, found[0]):
            return f"its file {wrong}"
        found[0].replace(path)
    return ""
