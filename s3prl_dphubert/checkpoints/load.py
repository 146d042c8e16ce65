"""Load a model from any source: find out the format, and build the model that its reader describes."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from ..errors import CheckpointError
from ..model import SpeechModel
from ..model.state_dict import build_model, checkpoint_errors
from ..utils import resources
from . import directory, dphubert_pth, fairseq, hub, huggingface, s3prl_states, torchaudio
from .key_mapping import Weights
from .teachers import TEACHERS
from .unpickler import read_foreign_pickle

EXPORTED = (".onnx", ".xml")
SOURCES = (
    "a path, a Hub id (user/repo, user/repo@revision, user/repo/file.pth), a URL, "
    f"{hub.TORCHAUDIO}BUNDLE or one of {', '.join(TEACHERS)}"
)


def load_model(source: str | Path, refresh: bool = False) -> SpeechModel:
    """Load a speech model in float32 and eval mode, without running any code of the source.

    Args:
        source: one of

            - a name: ``hubert_nano``, which is part of this package, or ``hubert_base``, ``wavlm_large`` …
              (``s3prl-dphubert teachers`` lists them), which are downloaded from the Hugging Face Hub;
            - a directory: a checkpoint of this package, or of ``transformers``;
            - a file: a ``.pth`` of the published DPHuBERT code, a ``.pt`` of fairseq, of WavLM or
              converted by s3prl, or a ``states-N.ckpt`` of ``run_pretrain -u dphubert``, whose model is
              pruned as it would be then;
            - ``user/repo`` or ``user/repo@revision`` on the Hub, or ``user/repo/file.pth`` there;
            - the http(s) URL of such a file;
            - ``torchaudio:HUBERT_BASE``, a bundle of ``torchaudio.pipelines``.

            A name takes precedence over a path, and a path over a Hub id. Write ``./hubert_base`` or pass
            a :class:`~pathlib.Path` to load a directory that has the name of a model.
        refresh: download the model even if it is in the cache.

    Raises:
        CheckpointError: there is no such source, it cannot be downloaded, is damaged, incomplete or of a
            newer format, or has a part that has no counterpart here; the message names it.
        RunError: no choice of the gated units of a ``states-N.ckpt`` keeps its budget.
    """
    config, state = _read(source, refresh)
    return build_model(config, state, source)


load_teacher = load_model
"""Another name of :func:`load_model`."""


def load_hub(hub_id: str, refresh: bool = False) -> SpeechModel:
    """Load ``user/repo[/file][@revision]`` from the Hub, even if there is a local path of that name.

    Raises:
        CheckpointError: as :func:`load_model`, or the text has another form.
    """
    parsed = hub.parse_hub_id(hub_id)
    if parsed is None:
        raise CheckpointError(f"{hub_id!r} is not a Hub id, expected user/repo or user/repo@revision")
    config, state = _read_hub(*parsed, refresh)
    return build_model(config, state, hub_id)


def _read(source: str | Path, refresh: bool) -> Weights:
    text = str(source)
    path = Path(source).expanduser()
    exists = os.path.exists(path)  # False for what cannot be a path, where Path.exists may raise
    if text in TEACHERS and not (exists and isinstance(source, Path)):
        teacher = TEACHERS[text]
        if teacher.repository is None:
            return directory.read(resources.find(f"assets/{text}"))
        return _read_hub(hub.HubRepository(teacher.repository), "", refresh)
    if text.startswith(hub.TORCHAUDIO):
        bundle = hub.load_bundle(text.removeprefix(hub.TORCHAUDIO))
        with checkpoint_errors(text):
            return torchaudio.read(bundle, text)
    if hub.is_url(text):
        try:
            return _read_file(hub.fetch_url(text, refresh))
        except hub.DownloadError:
            raise
        except CheckpointError as error:
            advice = f"it came from {text}, fetch it again with refresh (-r)"
            raise CheckpointError(f"{error}; {advice}") from error
    if exists:
        return _read_directory(path) if path.is_dir() else _read_file(path)
    if parsed := hub.parse_hub_id(text):
        try:
            return _read_hub(*parsed, refresh)
        except hub.DownloadError as error:
            raise hub.DownloadError(f"{text}: no such file or directory; on the Hub, {error}") from error
    raise CheckpointError(f"{text}: no such file or directory; expected {SOURCES}")


def _read_hub(repository: hub.HubRepository, filename: str, refresh: bool) -> Weights:
    """Read a file of a repository, or else a checkpoint of this package or of ``transformers`` there."""
    if filename:
        return _read_file(repository.fetch(filename, refresh))
    if refresh:
        repository.fetch(huggingface.CONFIG, force=True)
        for name in huggingface.WEIGHTS:
            with suppress(hub.MissingError):
                repository.fetch(name, force=True)
                break
    pinned, source = repository.pinned(huggingface.CONFIG), str(repository)
    config = pinned.fetch(huggingface.CONFIG)
    if directory.read_mapping(config, source).get("model_type") == directory.MODEL_TYPE:
        pinned.fetch(directory.WEIGHTS)
        return directory.read(config.parent)
    with checkpoint_errors(source):
        return huggingface.read(pinned.find, source, repository.name)


def _read_directory(folder: Path) -> Weights:
    def find(name: str) -> Path | None:
        return folder / name if (folder / name).is_file() else None

    source = str(folder)
    if huggingface.read_json(find, huggingface.CONFIG, source).get("model_type") == directory.MODEL_TYPE:
        return directory.read(folder)
    with checkpoint_errors(source):
        return huggingface.read(find, source)


def _read_file(path: Path) -> Weights:
    source = str(path)
    if path.suffix in EXPORTED:
        raise CheckpointError(f"{source}: an exported model, which s3prl_dphubert.export.load_exported loads")
    content = read_foreign_pickle(path)
    if fairseq.is_fairseq(content):
        with checkpoint_errors(source):
            return fairseq.read(content, source)
    keys = list(content) if isinstance(content, dict) else [type(content).__name__]
    if {s3prl_states.STUDENT, s3prl_states.RECIPE} <= set(keys):
        model = s3prl_states.parse_states(content, source).model()
        return model.config, model.state_dict()
    if {"state_dict", "config"} <= set(keys):
        return dphubert_pth.read(content, source)
    raise CheckpointError(
        f"{source}: holds {', '.join(map(str, keys[:8]))}; expected a checkpoint of DPHuBERT (state_dict, "
        "config), of fairseq or WavLM (model, cfg or args), of s3prl (model_weight, model_cfg) or of its "
        f"run_pretrain -u dphubert ({s3prl_states.STUDENT}, {s3prl_states.RECIPE})"
    )
