"""Command line: ``s3prl-dphubert COMMAND …``."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from .errors import DPHubertError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="s3prl-dphubert", description="Compress speech SSL models.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    manifest = commands.add_parser("manifest", help="list audio in a manifest")
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
    validate.add_argument("manifest", type=Path, help="manifest, a .tsv file")
    validate.add_argument("--workers", type=int, default=2, help="processes that decode (default 2)")

    compress = commands.add_parser("compress", help="compress a teacher, or go on with a run")
    compress.add_argument("config", type=Path, help="YAML of the run")
    compress.add_argument("--out", required=True, type=Path, help="directory of the run")

    inspect = commands.add_parser("inspect", help="show what a checkpoint is made of")
    inspect.add_argument("checkpoint", type=Path, help="checkpoint directory or released .pth")

    profile = commands.add_parser("profile", help="parameters, SUPERB MACs and speed of checkpoints")
    profile.add_argument("checkpoints", nargs="+", type=Path, metavar="CHECKPOINT", help="as for inspect")
    profile.add_argument("--seconds", type=float, default=10.0, help="audio to time (default 10)")
    profile.add_argument("--repeats", type=int, default=5, help="runs, interleaved (default 5)")

    demo = commands.add_parser("demo", help="compress hubert_nano on the speech that ships")
    demo.add_argument("--out", type=Path, default=Path("demo-output"), help="directory of the demo's run")
    demo.add_argument("--config", type=Path, help="another YAML than upstream_configs/demo.yaml")
    return parser


def _manifest(arguments: argparse.Namespace) -> None:
    from .data.manifest import scan, write
    from .errors import ConfigError

    splits = dict(item.partition("=")[::2] for item in arguments.split)
    ConfigError.raise_for(
        "--split",
        (f"{name!r} has no glob, allowed: NAME=GLOB" for name, glob in splits.items() if not (name and glob)),
    )
    found, skipped = scan(
        arguments.sources, min_seconds=arguments.min_seconds, splits=splits, check=arguments.check
    )
    print(write(arguments.out, found, skipped, overwrite=arguments.overwrite))


def _validate(arguments: argparse.Namespace) -> None:
    from .data.check import check
    from .data.manifest import Manifest
    from .errors import DataError

    report = check(Manifest.load(arguments.manifest), arguments.workers)
    print(report.text())
    if report.bad:
        raise DataError(f"{arguments.manifest}: {len(report.bad)} of {report.files} files are bad")


def _compress(arguments: argparse.Namespace) -> None:
    from .compress import compress

    compress(arguments.config, arguments.out)
    print(f"{arguments.out / 'model'}")


def _inspect(arguments: argparse.Namespace) -> None:
    from .card import units_table
    from .checkpoint import load_model
    from .cost import macs, parameters

    config = load_model(arguments.checkpoint).config
    print(f"parameters    {parameters(config):,}\nMACs of 10 s  {macs(config, 160_000):,}\n")
    print(units_table(config))


def _profile(arguments: argparse.Namespace) -> None:
    from .checkpoint import load_model
    from .errors import ConfigError
    from .profile import table

    faults = [
        f"--{name} is {value:g}, allowed: {allowed}"
        for name, value, least, allowed in (
            ("seconds", arguments.seconds, 0.1, "0.1 or more"),
            ("repeats", arguments.repeats, 1, "1 or more"),
        )
        if value < least
    ]
    ConfigError.raise_for("profile", faults)
    models = {str(path): load_model(path) for path in arguments.checkpoints}
    print(table(models, arguments.seconds, arguments.repeats))


def _demo(arguments: argparse.Namespace) -> None:
    from .demo import demo

    demo(arguments.out, arguments.config)


COMMANDS = {
    "manifest": _manifest,
    "validate": _validate,
    "compress": _compress,
    "inspect": _inspect,
    "profile": _profile,
    "demo": _demo,
}


def main(argv: list[str] | None = None) -> int:
    """Run one command; a mistake of the user is one line on stderr and exit code 2."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    try:
        COMMANDS[arguments.command](arguments)
    except DPHubertError as error:
        print(f"s3prl-dphubert: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
