"""Close half of a model's units by hand, cut them out to a budget, and check that nothing else changed."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from s3prl_dphubert import Budget, GatedModel, load_model, prune, save_model


def main() -> None:
    """Set the gates without training, prune, and compare the two models."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="hubert_mini", help="name, directory, file or Hub id")
    parser.add_argument("--sparsity", type=float, default=0.5, help="share of the parameters that goes")
    parser.add_argument("--out", type=Path, help="directory for the pruned model")
    arguments = parser.parse_args()

    torch.manual_seed(0)
    gated = GatedModel(load_model(arguments.model)).eval()
    with torch.no_grad():  # in a run the gates are learnt; here chance decides which units stay
        for gate in gated.gates.parameters():
            gate.copy_(torch.where(torch.rand_like(gate) < 0.5, 10.0, -10.0))

    small = prune(gated)  # each group of gates as it is
    waveforms = torch.randn(1, 16_000)
    masked, _ = gated.extract_features(waveforms)
    pruned, _ = small.extract_features(waveforms)
    difference = max((a - b).abs().max().item() for a, b in zip(masked, pruned, strict=True))
    print(f"largest difference between masked and pruned model: {difference:.1e}")

    fitted = prune(gated, Budget(arguments.sparsity))  # all groups together, so that the budget is kept
    for name, model in (("teacher", gated.model), ("pruned", small), ("pruned to the budget", fitted)):
        print(f"{name}: {sum(p.numel() for p in model.parameters()):,} parameters, FFN {model.config.ffn}")
    if arguments.out:
        print(f"saved: {save_model(fitted, arguments.out)}")


if __name__ == "__main__":
    main()
