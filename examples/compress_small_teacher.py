"""Compress hubert_mini to a share of its parameters, on the speech that ships."""

from __future__ import annotations

import argparse
from pathlib import Path

import s3prl_dphubert
from s3prl_dphubert import cli, compress, load_model

SPEECH = Path(s3prl_dphubert.__file__).parent / "assets" / "speech"


def main() -> None:
    """List the speech, compress, and compare sizes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("compressed"), help="directory of the run")
    parser.add_argument(
        "--updates", type=int, default=300, help="of stage 1; stage 2 takes half (default 300)"
    )
    parser.add_argument("--sparsity", type=float, default=0.75, help="share of the parameters that goes")
    arguments = parser.parse_args()

    manifest = arguments.out / "data" / "speech.tsv"
    if not manifest.exists():
        listing = ["manifest", str(SPEECH), "--out", str(manifest), "--split", "valid=*[05].ogg"]
        cli.main([*listing, "--min-seconds", "0.4"])
    updates = arguments.updates
    stage = {"lr": 1e-3, "accumulate": 1, "precision": "auto", "num_workers": 0}
    small = compress(
        teacher="hubert_mini",
        data={
            "train": str(manifest),
            "valid": str(manifest.with_suffix(".valid.tsv")),
            "valid_batches": 2,
            "batch": {"seconds_per_batch": 16.0, "min_seconds": 0.4, "max_seconds": 8.0, "buckets": 20},
        },
        # The tolerance prunes even after a trial with so few updates that the gates are far from the target.
        budget={"sparsity": arguments.sparsity, "warmup": updates // 5, "tolerance": 1.0},
        objective={"groups": [[0], [4, 8, 12]]},
        stage1={"updates": updates, "warmup": updates // 8, "gate_lr": 0.1, **stage},
        stage2={"updates": max(updates // 2, 1), "warmup": updates // 16, **stage},
        out=arguments.out / "run",
    )
    before, after = (
        sum(p.numel() for p in model.parameters()) for model in (load_model("hubert_mini"), small)
    )
    print(f"parameters: {before:,} -> {after:,} ({after / before:.1%})")
    print(f"model: {arguments.out / 'run' / 'model'}")


if __name__ == "__main__":
    main()
