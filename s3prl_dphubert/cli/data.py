"""Commands about audio: ``manifest`` and ``validate``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add(commands: Any) -> None:
    """Add the commands of this module to a parser."""
    manifest = commands.add_parser("manifest", help="list audio in a manifest")
    manifest.set_defaults(run=_manifest)
    sources = (
        "folders, audio files, globs, tar shards (train-{000..031}.tar) or URLs that fsspec reads (s3://…)"
    )
    manifest.add_argument("sources", nargs="+", metavar="SOURCE", help=sources)
    manifest.add_argument("--out", required=True, type=Path, help="manifest to write, a .tsv file")
    split = "put files whose path matches GLOB into OUT.NAME.tsv; may be repeated"
    manifest.add_argument("--split", action="append", default=[], metavar="NAME=GLOB", help=split)
    manifest.add_argument("--min-seconds", type=float, default=0.1, help="skip shorter files (default 0.1)")
    manifest.add_argument("--check", action="store_true", help="decode every file once, not only its header")
    manifest.add_argument("--overwrite", action="store_true", help="replace existing manifests")

    validate = commands.add_parser("validate", help="decode everything that a manifest lists, once")
    validate.set_defaults(run=_validate)
    validate.add_argument("manifest", type=Path, help="manifest, a .tsv file")
    validate.add_argument("--workers", type=int, default=2, help="processes that decode (default 2)")


def _manifest(arguments: argparse.Namespace) -> None:
    from ..data.batches import BatchConfig, epoch_share
    from ..data.manifest import scan, write
    from ..errors import ConfigError

    splits = dict(item.partition("=")[::2] for item in arguments.split)
    ConfigError.raise_for(
        "--split",
        (f"{name!r} has no glob, allowed: NAME=GLOB" for name, glob in splits.items() if not (name and glob)),
    )
    files, skipped = scan(
        arguments.sources, min_seconds=arguments.min_seconds, splits=splits, check=arguments.check
    )
    print(write(arguments.out, files, skipped, overwrite=arguments.overwrite))
    for name, manifest in files.items():
        if share := epoch_share(manifest, BatchConfig()):
            print(f"{name or arguments.out}: {share}")


def _validate(arguments: argparse.Namespace) -> None:
    from ..data.batches import BatchConfig, epoch_share
    from ..data.manifest import Manifest
    from ..data.validate import check
    from ..errors import DataError

    manifest = Manifest.load(arguments.manifest)
    report = check(manifest, arguments.workers)
    print(report.text())
    if share := epoch_share(manifest, BatchConfig()):
        print(share)
    if report.bad:
        raise DataError(f"{arguments.manifest}: {len(report.bad)} of {report.files} files are bad")
