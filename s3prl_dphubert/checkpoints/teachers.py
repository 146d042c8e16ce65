"""Names of published models, where they are and how they were trained. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..model import ModelConfig


@dataclass(frozen=True)
class PublishedTeacher:
    """A pre-trained model that is loaded by name.

    ``normalize`` and ``dropout`` overrule the files on the Hub and copies of them, since some differ from
    the training: their ``preprocessor_config.json`` normalises waveforms for models that never saw
    normalised ones, and their ``config.json`` has the dropout of a later fine-tuning.

    Args:
        license: licence of the weights, as stated with them.
        parameters: number of parameters, the frozen scale after the extractor included.
        macs: multiply-accumulate operations for 10 s of audio.
        repository: ``user/repo`` on the Hugging Face Hub; ``None`` for a part of this package.
        normalize: whether the model was trained on normalised waveforms.
        dropout: probabilities in training of a student, after the projection, on attention weights, inside
            and after the feed-forward: those of the published compression or else of the model's training.
    """

    license: str
    parameters: int
    macs: int
    repository: str | None = None
    normalize: bool = False
    dropout: tuple[float, float, float, float] = (0.1, 0.1, 0.0, 0.1)

    def as_trained(self, config: ModelConfig) -> ModelConfig:
        """Return the configuration with the dropout and the normalisation of this model."""
        names = ("projection_dropout", "attention_dropout", "ffn_dropout", "dropout")
        changes: dict[str, Any] = dict(zip(names, self.dropout, strict=True))
        return replace(config, normalize_waveform=self.normalize, normalize_eps=1e-5, **changes)


APACHE, WAVLM = "Apache-2.0", "CC BY-SA 3.0"  # WavLM: as the licence file of microsoft/UniSpeech says

TEACHERS = {
    "hubert_mini": PublishedTeacher("CC BY-SA 4.0", 5_922_816, 5_668_447_552),
    "hubert_base": PublishedTeacher(APACHE, 94_371_456, 74_228_342_848, "facebook/hubert-base-ls960"),
    "hubert_large": PublishedTeacher(
        APACHE, 315_438_208, 192_358_326_784, "facebook/hubert-large-ll60k", normalize=True
    ),
    "wavlm_base": PublishedTeacher(WAVLM, 94_381_680, 74_265_133_120, "microsoft/wavlm-base"),
    "wavlm_base_plus": PublishedTeacher(WAVLM, 94_381_680, 74_265_133_120, "microsoft/wavlm-base-plus"),
    "wavlm_large": PublishedTeacher(
        WAVLM, 315_452_608, 192_456_434_176, "microsoft/wavlm-large", normalize=True
    ),
    "wav2vec2_base": PublishedTeacher(APACHE, 94_371_456, 74_228_342_848, "facebook/wav2vec2-base"),
    "wav2vec2_large_lv60k": PublishedTeacher(
        APACHE, 315_438_208, 192_358_326_784, "facebook/wav2vec2-large-lv60", True, (0.1, 0.1, 0.0, 0.0)
    ),
    "data2vec_base": PublishedTeacher(
        APACHE, 93_164_032, 73_616_584_768, "facebook/data2vec-audio-base", True, (0.0, 0.1, 0.0, 0.1)
    ),
}
"""Names that :func:`~s3prl_dphubert.load_model` takes."""

REPLACED = {"hubert_nano": "hubert_mini"}
"""Former names of models that shipped -> what ships now."""


def recognize(config: Mapping[str, Any], repository: str = "") -> PublishedTeacher | None:
    """Return the published model that a ``config.json`` of ``transformers`` describes, wherever it lies.

    It is recognized by the repository that it comes from or that it names as its origin. A model with
    GroupNorm and the size of a published one counts as that one: ``transformers`` cannot pre-train such a
    model, so it comes from fairseq, which trained all of them alike. A model with a head of fine-tuning is
    another model.

    Args:
        config: values of ``config.json``.
        repository: ``user/repo`` that it was read from, if it is on the Hub.
    """
    by_repository = {each.repository: each for each in TEACHERS.values() if each.repository}
    if repository in by_repository:
        return by_repository[repository]
    if any(not name.endswith(PRE_TRAINED) for name in config.get("architectures") or ()):
        return None
    if (origin := str(config.get("_name_or_path"))) in by_repository:
        return by_repository[origin]
    if config.get("feat_extract_norm", "group") != "group":
        return None
    size = tuple(config.get(name, value) for name, value in _BASE_SIZE.items())
    name = _GROUP_NORM.get(str(config.get("model_type")))
    return TEACHERS[name] if name and size == tuple(_BASE_SIZE.values()) else None


def is_hubert_large(config: ModelConfig) -> bool:
    """Return whether a pre-trained HuBERT is HuBERT Large, by its shape and its training without dropout."""
    shape = config.embed_dim, config.num_layers, config.total_heads, set(config.ffn), config.layer_norm_first
    dropout = config.projection_dropout, config.attention_dropout, config.ffn_dropout, config.dropout
    return shape == (1024, 24, 16, {4096}, True) and not any(dropout)


PRE_TRAINED = ("Model", "ForPreTraining")
"""Ends of the names of architectures without a head of fine-tuning."""

_GROUP_NORM = {"hubert": "hubert_base", "wav2vec2": "wav2vec2_base", "wavlm": "wavlm_base"}
_BASE_SIZE = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "do_stable_layer_norm": False,
}
