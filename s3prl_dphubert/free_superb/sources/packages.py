"""Debian packages fetched from a folder, from apt or from a mirror, and verified by size and SHA-256."""

from __future__ import annotations

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
from ...utils.readers import read_table

MIRRORS = (
    "https://deb.debian.org/debian",
    "https://snapshot.debian.org/archive/debian/20250520T000000Z",
)
"""Addresses of the archive; the second keeps versions that the first has replaced."""

TIMEOUT = 60  # seconds without a response


@dataclass(frozen=True)
class Package:
    """One version of a package, as Debian's signed index lists it.

    Attributes:
        name: name of the package.
        version: version whose recordings make up the benchmark.
        bytes: size of the ``.deb``.
        sha256: hash of the ``.deb``.
        pool: path on a mirror.
    """

    name: str
    version: str
    bytes: int
    sha256: str
    pool: str

    @property
    def file(self) -> str:
        """File name on a mirror."""
        return self.pool.rpartition("/")[2]


def table(path: Path) -> dict[str, Package]:
    """Read ``packages.tsv``; returns name -> package of everything that the benchmark may need."""
    rows = read_table(path, ("package", "version", "bytes", "sha256", "pool"))
    packages = [Package(r["package"], r["version"], int(r["bytes"]), r["sha256"], r["pool"]) for r in rows]
    return {package.name: package for package in packages}


def fetch(
    packages: Iterable[Package], out: Path, debs: Path | None = None, mirrors: tuple[str, ...] = MIRRORS
) -> dict[str, Path]:
    """Download packages; those that are already complete are not fetched again.

    Args:
        packages: the packages.
        out: folder for downloads.
        debs: folder with ``.deb`` files to use in place instead of downloading.
        mirrors: tried in turn if apt is missing or has another version.

    Returns:
        Name -> path of the ``.deb``.

    Raises:
        DataError: a package is missing, cannot be fetched or differs from the one in the table.
    """
    packages = list(packages)
    if debs is not None:
        return {package.name: _find(package, debs) for package in packages}
    out.mkdir(parents=True, exist_ok=True)
    total = sum(package.bytes for package in packages)
    with tqdm(desc="packages", unit="B", unit_scale=True, total=total, mininterval=0.5) as bar:
        for package in packages:
            path = out / package.file
            if fault(package, path):
                _download(package, path, mirrors)
            bar.update(package.bytes)
    return {package.name: out / package.file for package in packages}


def fault(package: Package, path: Path) -> str:
    """Describe what is wrong with the size or SHA-256 of a file; empty if nothing is."""
    if not path.is_file():
        return "is not there"
    size = path.stat().st_size
    if size != package.bytes:
        return f"has {size} bytes, {package.name} {package.version} has {package.bytes}"
    sha256 = sha256_file(path)
    if sha256 != package.sha256:
        return f"has the sha256 {sha256}, {package.name} {package.version} has {package.sha256}"
    return ""


def _find(package: Package, debs: Path) -> Path:
    """Return the file of a package in a folder, by size: apt writes the colon of a version as ``%3a``."""
    paths = sorted(debs.glob(f"{package.name}_*.deb"))
    if not paths:
        raise DataError(
            f"{debs}: holds no {package.name}_*.deb; apt-get download {package.name}={package.version}"
        )
    same_size = [path for path in paths if path.stat().st_size == package.bytes]
    path = (same_size or paths)[0]
    if text := fault(package, path):
        raise DataError(f"{path}: {text}; apt-get download {package.name}={package.version}")
    return path


def _download(package: Package, path: Path, mirrors: tuple[str, ...]) -> None:
    """Try apt, then each mirror, until one has the right file."""
    faults = []
    if shutil.which("apt-get"):
        text = _download_by_apt(package, path)
        if not text:
            return
        faults.append(f"apt-get: {text}")
    for mirror in mirrors:
        url = f"{mirror}/{package.pool}"
        try:
            with replacing(path) as partial:
                download(url, partial, package.file, TIMEOUT)
                if text := fault(package, partial):
                    raise OSError(f"the file {text}")
            return
        except (OSError, HTTPException) as error:
            faults.append(f"{url}: {error}")
    raise DataError(f"{package.name} {package.version}: cannot be fetched ({'; '.join(faults)})")


def _download_by_apt(package: Package, path: Path) -> str:
    """Let apt download into a temporary folder; returns the reason of a failure, or an empty text."""
    with tempfile.TemporaryDirectory(dir=path.parent, suffix=".part") as folder:
        command = ["apt-get", "download", f"{package.name}={package.version}"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        paths = sorted(Path(folder).glob("*.deb"))
        if done.returncode or not paths:
            return done.stderr.strip().rpartition("\n")[2] or f"exit code {done.returncode}"
        if text := fault(package, paths[0]):
            return f"its file {text}"
        paths[0].replace(path)
    return ""
