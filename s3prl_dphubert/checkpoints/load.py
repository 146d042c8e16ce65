"""Models of other projects, and our own, by name or place: one converter for each format."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from ..model import ModelConfig, SpeechModel
from ..model.state_dict import build_model
from ..utils import resources
from . import fairseq, hub, huggingface, torchaudio
from .directory import read_directory
from .dphubert_pth import read_released
from .key_mapping import State
from .unpickler import read_foreign_pickle

OWN = "dphubert"


@dataclass(frozen=True)
class Published:
    """A teacher on the Hub, and how its authors trained it.

    The Hub's copies say otherwise of some: their preprocessor_config.json normalises waveforms for
    models that never saw such, and their config.json has the dropout of later fine-tuning.

    Args:
        repo: where it lies.
        normalize: whether it was trained on normalised waveforms.
        dropout: the probabilities after the projection, on attention weights, inside and after the
            feed-forward, with which it was trained.
    """

    repo: str
    normalize: bool = False
    dropout: tuple[float, float, float, float] = (0.1, 0.1, 0.0, 0.1)

    def as_trained(self, config: ModelConfig) -> ModelConfig:
        """The configuration with the dropout of the model's training."""
        names = ("projection_dropout", "attention_dropout", "ffn_dropout", "dropout")
        changes: dict[str, Any] = dict(zip(names, self.dropout, strict=True))
        return replace(config, **changes)


PUBLISHED = {
    "hubert_base": Published("facebook/hubert-base-ls960"),
    "hubert_large": Published("facebook/hubert-large-ll60k", True, (0.0, 0.0, 0.0, 0.0)),
    "wavlm_base": Published("microsoft/wavlm-base"),
    "wavlm_base_plus": Published("microsoft/wavlm-base-plus"),
    "wavlm_large": Published("microsoft/wavlm-large", True),
    "wav2vec2_base": Published("facebook/wav2vec2-base"),
    "wav2vec2_large_lv60k": Published("facebook/wav2vec2-large-lv60", True, (0.1, 0.1, 0.0, 0.0)),
    "data2vec_base": Published("facebook/data2vec-audio-base", True, (0.0, 0.1, 0.0, 0.1)),
}
SHIPPED = ("hubert_nano",)
_PART = r"[A-Za-z0-9][\w.-]*"
_HUB_ID = re.compile(rf"({_PART}/{_PART})((?:/{_PART})*)(@[^\s@]+)?")


def load_teacher(name: str | Path) -> SpeechModel:
    """Load an encoder in float32 and eval mode.

    Args:
        name: one of

            - a teacher's name: ``hubert_nano``, which ships, or ``hubert_base``, ``wavlm_large`` …
              (:data:`PUBLISHED`), which are fetched from the Hugging Face Hub;
            - a directory: a checkpoint of this package, or of ``transformers``;
            - a file: a released ``.pth``, a ``.pt`` of fairseq, of WavLM or converted by s3prl;
            - ``user/repo`` or ``user/repo@revision`` on the Hub, or ``user/repo/file.pth`` there;
            - ``torchaudio:HUBERT_BASE``, a bundle of ``torchaudio.pipelines``.

    Raises:
        CheckpointError: there is none, it cannot be fetched, is damaged, or has a part that has no
            counterpart here; the message names it.
    """
    text = str(name)
    if text in SHIPPED:
        return load_model(resources.find(f"assets/{text}"))
    if text in PUBLISHED:
        return load_hub(hub.Repository(PUBLISHED[text].repo))
    if text.startswith("torchaudio:"):
        bundle = hub.bundle(text.removeprefix("torchaudio:"))
        return _convert(lambda: torchaudio.read(bundle, text), text)
    path = Path(name).expanduser()
    if path.is_dir():
        return _from_directory(path)
    if path.exists():
        return _from_file(path)
    if match := _HUB_ID.fullmatch(text):
        repository = hub.Repository(match[1], (match[3] or "@")[1:] or None)
        try:
            return _from_file(repository.fetch(match[2][1:])) if match[2] else load_hub(repository)
        except hub.DownloadError as error:
            raise hub.DownloadError(f"{text}: no such file or directory; on the Hub, {error}") from error
    names = ", ".join((*SHIPPED, *PUBLISHED))
    raise CheckpointError(
        f"{text}: no such file or directory, allowed: a path, a Hub id (user/repo), "
        f"torchaudio:BUNDLE, or one of {names}"
    )


def _convert(read: Callable[[], tuple[ModelConfig, State]], source: str) -> SpeechModel:
    try:
        config, state = read()
    except CheckpointError:
        raise
    except (TypeError, ValueError, LookupError, ArithmeticError, AttributeError) as error:
        raise CheckpointError(f"{source}: {error}") from error
    return build_model(config, state, source)


def load_hub(repository: hub.Repository) -> SpeechModel:
    """Load an encoder from a repository on the Hub: a checkpoint of this package or of ``transformers``.

    Raises:
        CheckpointError: as :func:`load_teacher`.
    """
    pinned, source = repository.pinned(huggingface.CONFIG), str(repository)
    kind = huggingface.read_json(pinned.find, huggingface.CONFIG, source).get("model_type")
    if kind == OWN:
        pinned.fetch("model.safetensors")
        return load_model(pinned.fetch(huggingface.CONFIG).parent)
    teacher = next((each for each in PUBLISHED.values() if each.repo == repository.name), None)

    def read() -> tuple[ModelConfig, State]:
        if teacher is None:
            return huggingface.read(pinned.find, source)
        config, state = huggingface.read(pinned.find, source, teacher.normalize)
        return teacher.as_trained(config), state

    return _convert(read, source)


def _from_directory(folder: Path) -> SpeechModel:
    def find(name: str) -> Path | None:
        return folder / name if (folder / name).is_file() else None

    source = str(folder)
    if huggingface.read_json(find, huggingface.CONFIG, source).get("model_type") == OWN:
        return load_model(folder)
    return _convert(lambda: huggingface.read(find, source), source)


def _from_file(path: Path) -> SpeechModel:
    content, source = read_foreign_pickle(path), str(path)
    if fairseq.is_fairseq(content):
        return _convert(lambda: fairseq.read(content, source), source)
    if isinstance(content, dict) and {"state_dict", "config"} <= set(content):
        return load_model(path)
    found = ", ".join(map(str, list(content)[:8])) if isinstance(content, dict) else type(content).__name__
    raise CheckpointError(
        f"{source}: holds {found}; allowed: released checkpoints (state_dict, config), "
        "fairseq's and WavLM's (model, cfg or args), s3prl's (model_weight, model_cfg)"
    )


def load_model(source: str | Path) -> SpeechModel:
    """Load a model in float32 and eval mode.

    Args:
        source: a checkpoint directory, or a released ``.pth`` file (with or without its
            distillation projections; both spellings of weight norm).

    Raises:
        CheckpointError: nothing is there, or it is damaged, incomplete, of a newer format or
            would have to execute code; the message names the tensor or field.
    """
    source = Path(source)
    if source.is_dir():
        config, state = read_directory(source)
    elif source.is_file():
        config, state, gates = read_released(source)
        if gates:
            raise CheckpointError(f"{source}: holds the gates of a student in training; prune it first")
    else:
        raise CheckpointError(f"{source}: no such file or directory")
    return build_model(config, state, source)
