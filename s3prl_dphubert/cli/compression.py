"""Commands that compress: ``compress``, ``cluster-layers`` and ``demo``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any


def add(commands: Any) -> None:
    """Add the commands of this module to a parser."""
    compress = commands.add_parser("compress", help="compress a teacher, or resume a run")
    compress.set_defaults(run=_compress, resumes=True)
    compress.add_argument("config", help="YAML file of the run, or name of a built-in one (dphubert_base)")
    compress.add_argument("--out", required=True, type=Path, help="directory of the run")
    changes = "value of one field, as YAML (stage1.updates=20000); may be repeated"
    compress.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help=changes)
    sizes = "sizes from one stage 1, each distilled: shares to remove (0.5,0.75,0.9) or amounts (48M,24M)"
    compress.add_argument("--sizes", metavar="SIZE,…", help=sizes)

    clusters = commands.add_parser("cluster-layers", help="group a teacher's layers by their similarity")
    clusters.set_defaults(run=_cluster_layers)
    clusters.add_argument("teacher", help="name, path or Hub id of the teacher")
    clusters.add_argument("manifest", type=Path, help="utterances to compare the layers on")
    clusters.add_argument("--clusters", type=int, default=4, help="number of groups (default 4)")
    clusters.add_argument("--batches", type=int, default=8, help="batches of 60 s to read (default 8)")

    demo = commands.add_parser(
        "demo", help="compress hubert_mini on the included speech, then run s3prl's SID on the result"
    )
    demo.set_defaults(run=_demo, resumes=True)
    demo.add_argument("--out", type=Path, default=Path("demo-output"), help="directory of the run")
    demo.add_argument("--config", type=Path, help="YAML file to use in place of upstream_configs/demo.yaml")


def _compress(arguments: argparse.Namespace) -> None:
    from ..compression.compress_config import CompressConfig, find_config
    from ..compression.pipeline import compress
    from ..compression.run_summary import render_summary
    from ..utils.config_io import apply_changes, from_dict, read_yaml
    from ..utils.environment import is_first_process

    values = apply_changes(read_yaml(find_config(arguments.config)), arguments.set)
    if arguments.sizes is not None:
        values["sizes"] = [size.strip() for size in arguments.sizes.split(",")]
    config = from_dict(CompressConfig, values, arguments.config)
    compress(config, arguments.out)
    if not is_first_process():
        return
    if config.sizes:
        print((arguments.out / "sizes.md").read_text(encoding="utf8"), file=sys.stderr, end="")
        print("\n".join(str(arguments.out / str(size) / "model") for size in config.sizes))
    else:
        print(render_summary(arguments.out), file=sys.stderr)
        print(arguments.out / "model")


def _cluster_layers(arguments: argparse.Namespace) -> None:
    from ..checkpoints.load import load_model
    from ..data.batches import BatchConfig, validation_batches
    from ..data.manifest import Manifest
    from ..distillation.layer_clusters import cluster_layers, layer_similarities

    settings = BatchConfig(seconds_per_batch=60.0, min_seconds=0.5)
    batches = validation_batches(Manifest.load(arguments.manifest), settings, arguments.batches)
    model = load_model(arguments.teacher)
    similarities = layer_similarities(model, (batch.waveforms for batch in batches))
    print(f"groups: {cluster_layers(similarities, arguments.clusters)}")


def _demo(arguments: argparse.Namespace) -> None:
    from ..demo.compression_demo import demo

    demo(arguments.out, arguments.config)
