"""Subjects of other libraries: HuBERT Base of transformers, HuBERT Base and DistilHuBERT of s3prl."""

from __future__ import annotations

from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..constants import SAMPLE_RATE
from ..utils.files import new_folder, replacing
from .subjects import Call, Subject


@dataclass(frozen=True)
class TransformersSubject(Subject):
    """A HuBERT of Hugging Face's transformers, with default attention."""

    @property
    def name(self) -> str:
        """Unique name in tables."""
        return f"transformers, {self.title}, {self.precision}"

    def prepare(self, models: Path) -> None:
        """Write a folder for ``from_pretrained``."""
        from transformers import HubertConfig, HubertModel

        folder = models / f"transformers-{self.shape}"
        if self.config is not None and not folder.exists():
            config = HubertConfig(
                hidden_size=self.config.embed_dim,
                num_hidden_layers=self.config.num_layers,
                num_attention_heads=self.config.total_heads,
                intermediate_size=self.config.ffn[0] or 0,
                conv_dim=self.config.conv_channels,
                num_conv_pos_embeddings=self.config.pos_conv_kernel,
                num_conv_pos_embedding_groups=self.config.pos_conv_groups,
            )
            with new_folder(folder) as partial:
                HubertModel(config).save_pretrained(partial)

    def libraries(self) -> None:
        """Import transformers."""
        from transformers import HubertModel  # noqa: F401

    def load(self, models: Path) -> Call:
        """Load the model."""
        from transformers import HubertModel

        model = HubertModel.from_pretrained(models / f"transformers-{self.shape}").eval()

        def call(waveforms: Tensor, lengths: Tensor | None) -> Any:
            mask = None if lengths is None else torch.arange(waveforms.shape[1]) < lengths[:, None]
            return model(waveforms, attention_mask=mask, output_hidden_states=True)

        return call


@dataclass(frozen=True)
class S3prlSubject(Subject):
    """An upstream of s3prl: ``hubert``, or ``distilhubert`` with its prediction heads."""

    @property
    def name(self) -> str:
        """Unique name in tables."""
        return f"s3prl, {self.title}, {self.precision}"

    def prepare(self, models: Path) -> None:
        """Write a checkpoint that the upstream loads."""
        if self.config is not None and not self._file(models).exists():
            with redirect_stdout(StringIO()):  # it prints its configuration
                content = _distiller(self.config) if self._distilled else _hubert(self.config)
            with replacing(self._file(models)) as partial:
                torch.save(content, partial)

    def libraries(self) -> None:
        """Import the upstream's module."""
        self._expert()

    def load(self, models: Path) -> Call:
        """Load the model as s3prl does."""
        expert = self._expert()(str(self._file(models))).eval()

        def call(waveforms: Tensor, lengths: Tensor | None) -> Any:
            ends = [waveforms.shape[1]] * len(waveforms) if lengths is None else lengths.tolist()
            return expert([row[:end] for row, end in zip(waveforms, ends, strict=True)])

        return call

    @property
    def _distilled(self) -> bool:
        return self.shape == "distilhubert"

    def _expert(self) -> Any:
        if self._distilled:
            from s3prl.upstream.distiller.expert import UpstreamExpert
        else:
            from s3prl.upstream.hubert.expert import UpstreamExpert
        return UpstreamExpert

    def _file(self, models: Path) -> Path:
        return models / f"s3prl-{self.shape}.pt"


def _hubert(config: Any) -> dict[str, Any]:
    from s3prl.upstream.hubert.hubert_model import HubertConfig, HubertModel, HubertPretrainingConfig

    layers = list(zip(config.conv_channels, config.conv_kernels, config.conv_strides, strict=True))
    values = {
        "encoder_layers": config.num_layers,
        "encoder_embed_dim": config.embed_dim,
        "encoder_ffn_embed_dim": config.ffn[0],
        "encoder_attention_heads": config.total_heads,
        "conv_feature_layers": str(layers),
        "conv_pos": config.pos_conv_kernel,
        "conv_pos_groups": config.pos_conv_groups,
        "final_dim": 256,
        "label_rate": 50,
    }
    symbols = [[str(index) for index in range(500)]]
    model = HubertModel(HubertConfig(**values), HubertPretrainingConfig(), symbols)
    return {
        "task_cfg": {"sample_rate": SAMPLE_RATE, "normalize": False},
        "model_cfg": values,
        "model_weight": model.state_dict(),
        "dictionaries_symbols": symbols,
    }


def _distiller(config: Any) -> dict[str, Any]:
    from s3prl.upstream.distiller.model import DistillerConfig, DistillerModel

    layers = list(zip(config.conv_channels, config.conv_kernels, config.conv_strides, strict=True))
    values = {
        "extractor_conv_feature_layers": str(layers),
        "encoder_layers": config.num_layers,
        "encoder_embed_dim": config.embed_dim,
        "encoder_ffn_embed_dim": config.ffn[0],
        "encoder_attention_heads": config.total_heads,
        "conv_pos": config.pos_conv_kernel,
        "conv_pos_groups": config.pos_conv_groups,
        "final_dim": config.embed_dim,
        "n_tasks": 3,
        "pred_layer_id": [4, 8, 12],
        "task_emb_type": "expand-last",
        "out_layer_inter_dim": 2 * config.embed_dim,
    }
    model = DistillerModel(DistillerConfig(values))
    return {"Config": {"distiller": values}, "Distiller": model.state_dict()}
