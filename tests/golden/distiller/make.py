"""Loss and gradients of s3prl's distiller: run by hand; tests only read them.

    python -m tests.golden.distiller.make CHECKOUT/s3prl/pretrain/distiller/pretrain_expert.py

s3prl does not install this file; the model that it trains is the installed one.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import types
from pathlib import Path

import torch
from s3prl.upstream.distiller import model

from tests.helpers.distiller import CONFIG, fill, name_in_s3prl, parts, waveforms

RESULT = Path(__file__).with_name("distiller.json")


def main(path: Path) -> None:
    sys.modules["easydict"] = types.SimpleNamespace(EasyDict=lambda values: types.SimpleNamespace(**values))
    sys.modules["pretrain.distiller.dataset"] = types.SimpleNamespace(OnlineWaveDataset=None)
    sys.modules["upstream.distiller.model"] = model
    spec = importlib.util.spec_from_file_location("pretrain_expert", path)
    pretrain_expert = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pretrain_expert)
    teacher, student, objective = parts()

    class Upstream(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = types.SimpleNamespace(encoder=types.SimpleNamespace(layerdrop=0))

        def forward(self, waves):
            return {"hidden_states": teacher.extract_features(torch.stack(waves))[0]}

    torch.hub.load = lambda *arguments: Upstream()
    settings = types.SimpleNamespace(model="hubert_base", n_layers=3)
    training = pretrain_expert.DistillerForPretrain(model.DistillerConfig(CONFIG), settings)
    fill(training.distiller, student, objective)
    batch = waveforms()
    lengths = torch.tensor([batch.shape[1]] * len(batch))
    loss, others = training(batch, list(batch), lengths, torch.ones_like(batch), return_other=True)
    loss.backward()
    gradients = {name: p.grad.norm().item() for name, p in training.distiller.named_parameters()}
    names = {name_in_s3prl(name) for name, _ in [*student.named_parameters(), *objective.named_parameters()]
             if not name.endswith("dummy_weight")}  # fmt: skip
    if names != set(gradients):
        raise ValueError(f"names differ: {sorted(names ^ set(gradients))}")
    content = {
        "loss": loss.item(),
        "terms": {name: float(value) for name, value in others.items() if name[:3] in ("rec", "sim")},
        "gradient_norms": gradients,
    }
    RESULT.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
