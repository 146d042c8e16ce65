"""Load a model from any source: find out the format, and build the model that its reader describes."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from torch import Tensor

from ..errors import CheckpointError, shown
from ..model import SpeechModel
from ..model.state_dict import build_model, checkpoint_errors
from ..utils import resources
from ..utils.readers import read_json
from . import directory, dphubert_pth, espnet, fairseq, hub, huggingface, s3prl_states, torchaudio, user_names
from .key_mapping import Weights
from .teachers import REPLACED, TEACHERS
from .unpickler import plain, read_foreign_pickle

EXPORTED = (".onnx", ".xml")
SOURCES = (
    "a path, a Hub id (user/repo, user/repo@revision, user/repo/file.pth), a URL, "
    f"{hub.TORCHAUDIO}BUNDLE or one of {', '.join(TEACHERS)}"
)


def load_model(source: str | Path, refresh: bool = False) -> SpeechModel:
    """Load a speech model in float32 and eval mode, without running any code of the source.

    Args:
        source: one of

            - a name: ``hubert_mini``, which is part of this package, or ``hubert_base``, ``wavlm_large`` …
              (``s3prl-dphubert teachers`` lists them), which are downloaded from the Hugging Face Hub;
            - a directory: a checkpoint of this package, or of ``transformers``;
            - a file: a ``.pth`` of the published DPHuBERT code, a ``.pt`` of fairseq, of WavLM or
              converted by s3prl, a ``states-N.ckpt`` of ``run_pretrain -u dphubert``, whose model is
              pruned as it would be then, or a ``dev-best.ckpt`` of ``run_downstream -f`` with one of our
              upstreams, whose own checkpoint must still be where it was; or a ``.pth`` of ESPnet's HuBERT
              beside the ``config.yaml`` of its experiment;
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
    with checkpoint_errors(source):
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
        raise CheckpointError(f"{shown(hub_id)} is not a Hub id, expected user/repo or user/repo@revision")
    with checkpoint_errors(hub_id):
        config, state = _read_hub(*parsed, refresh)
    return build_model(config, state, hub_id)


def _read(source: str | Path, refresh: bool = False, is_origin: bool = False) -> Weights:
    text = str(source)
    path = Path(source).expanduser()
    exists = os.path.exists(path)  # False for what cannot be a path, where Path.exists may raise
    if text in TEACHERS and not (exists and isinstance(source, Path)):
        teacher = TEACHERS[text]
        if teacher.repository is None:
            return directory.read(resources.find(f"assets/{text}"))
        return _read_hub(hub.HubRepository(teacher.repository), "", refresh)
    if text.startswith(hub.TORCHAUDIO):
        name = text.removeprefix(hub.TORCHAUDIO)
        bundle = hub.load_bundle(name)
        with checkpoint_errors(text):
            config, state = torchaudio.read(bundle, text)
        published = TEACHERS.get(name.lower())
        return published.as_trained(config) if published else config, state
    if hub.is_url(text):
        return _read_url(text, refresh)
    if exists:
        return _read_directory(path) if path.is_dir() else _read_file(path, is_origin)
    if parsed := hub.parse_hub_id(text):
        try:
            return _read_hub(*parsed, refresh)
        except hub.DownloadError as error:
            raise hub.DownloadError(f"{text}: no such file or directory; on the Hub, {error}") from error
    if text in REPLACED:
        raise CheckpointError(
            f"{text}: no longer ships; use {REPLACED[text]}, another model that replaces it"
        )
    raise CheckpointError(f"{text}: no such file or directory; expected {SOURCES}")


def _read_url(url: str, refresh: bool) -> Weights:
    """Read a file from the cache of URLs; one that cannot be read is fetched once more, and then removed."""
    is_fresh = refresh or not hub.url_path(url).exists()
    path = hub.fetch_url(url, refresh)
    try:
        with checkpoint_errors(path):
            return _read_file(path)
    except CheckpointError as error:
        if not is_fresh:
            return _read_url(url, True)
        path.unlink(missing_ok=True)
        raise CheckpointError(f"{error}; it came from {url}, and has been removed from the cache") from error


def _read_hub(repository: hub.HubRepository, filename: str, refresh: bool) -> Weights:
    """Read a file of a repository, or else a checkpoint of this package or of ``transformers`` there."""
    if filename:
        folder = PurePosixPath(filename).parent
        path = repository.fetch(filename, refresh)
        return _read_file(path, sibling=lambda name: repository.find(str(folder / name)))
    if refresh:
        repository.fetch(huggingface.CONFIG, force=True)
        for name in huggingface.WEIGHTS:
            with suppress(hub.MissingError):
                repository.fetch(name, force=True)
                break
    pinned, source = repository.pinned(huggingface.CONFIG), str(repository)
    config = pinned.fetch(huggingface.CONFIG)
    if read_json(config, CheckpointError, source=source).get("model_type") == directory.MODEL_TYPE:
        pinned.fetch(directory.WEIGHTS)
        return directory.read(config.parent)
    with checkpoint_errors(source):
        return huggingface.read(pinned.find, source, repository.name)


def _read_directory(folder: Path) -> Weights:
    def find(name: str) -> Path | None:
        return _existing(folder / name)

    source = str(folder)
    if find(huggingface.CONFIG) is None:
        _explain_directory(folder)
    if huggingface.read_json(find, huggingface.CONFIG, source).get("model_type") == directory.MODEL_TYPE:
        return directory.read(folder)
    with checkpoint_errors(source):
        return huggingface.read(find, source)


def _existing(path: Path) -> Path | None:
    return path if path.is_file() else None


def _explain_directory(folder: Path) -> None:
    """Say which path to give instead of the folder of a run."""
    model = folder / "model"
    if (model / directory.CONFIG).is_file():
        raise CheckpointError(f"{folder}: the folder of a run; give that of its model, {model}")
    trained = sorted(folder.glob("*.pth"))
    if trained and (folder / espnet.CONFIG).is_file():
        averages = [path for path in trained if ".ave" in path.name]
        raise CheckpointError(
            f"{folder}: the folder of an experiment of ESPnet; give one of its files, such as "
            f"{(averages or trained)[0]}"
        )
    states = max(folder.glob("*.ckpt"), key=lambda path: path.stat().st_mtime, default=None)
    if states is not None:
        raise CheckpointError(
            f"{folder}: the folder of a run of s3prl; give one of its files, such as {states}"
        )


def _read_file(path: Path, is_origin: bool = False, sibling: espnet.Sibling | None = None) -> Weights:
    """Read one file; ``sibling`` locates others of its folder, where that is not on this machine."""
    source = str(path)
    if not path.is_file():
        raise CheckpointError(f"{source}: neither a folder nor a regular file")
    if path.suffix in EXPORTED:
        raise CheckpointError(f"{source}: an exported model, which s3prl_dphubert.export.load_exported loads")
    if path.suffix in (".safetensors", ".json"):
        raise CheckpointError(f"{source}: one file of a checkpoint; give its folder, {path.parent}")
    content = read_foreign_pickle(path)
    if fairseq.is_fairseq(content):
        with checkpoint_errors(source):
            return fairseq.read(content, source)
    if espnet.is_espnet(content):
        with checkpoint_errors(source):
            return espnet.read(content, sibling or (lambda name: _existing(path.parent / name)), source)
    keys = list(content) if isinstance(content, dict) else [type(content).__name__]
    if {s3prl_states.STUDENT, s3prl_states.RECIPE} <= set(keys):
        model = s3prl_states.parse_states(content, source).model()
        return model.config, model.state_dict()
    if {"state_dict", "config"} <= set(keys):
        return dphubert_pth.read(content, source)
    if {"Downstream", "Args"} <= set(keys) and (
        "Upstream" in keys or isinstance(plain(content["Args"]), dict)
    ):
        return _read_fine_tuned(content, source, is_origin)
    if isinstance(content, dict) and content and all(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(
            f"{source}: holds tensors without a configuration; give the folder that has its config.json"
        )
    raise CheckpointError(
        f"{source}: holds {', '.join(map(str, keys[:8]))}; expected a checkpoint of DPHuBERT (state_dict, "
        "config), of fairseq or WavLM (model, cfg or args), of ESPnet (encoder.hubert_pretrain_model or "
        "encoder.encoder), of s3prl (model_weight, model_cfg) or of its "
        f"run_pretrain -u dphubert ({s3prl_states.STUDENT}, {s3prl_states.RECIPE})"
    )


def _read_fine_tuned(content: dict[str, Any], source: str, is_origin: bool) -> Weights:
    """Read the upstream of a checkpoint of s3prl's ``run_downstream -f``.

    The checkpoint holds its tensors, and the name of the checkpoint that it began as, which has its shape.
    """
    arguments = plain(content["Args"])
    entry, origin = str(arguments.get("upstream")), arguments.get("upstream_ckpt")
    state = content.get("Upstream")
    if state is None:
        raise CheckpointError(
            f"{source}: of run_downstream without -f, so it holds no upstream; give the model that it was "
            f"trained on: {origin or entry}"
        )
    named = user_names.find(entry)
    origin = hub.RELEASED.get(entry, origin) if named is None else named.ckpt
    is_ours = named is not None or entry.startswith("dp")
    if not is_ours or not isinstance(origin, str) or hub.is_url(origin) or is_origin:
        raise CheckpointError(
            f"{source}: fine-tuned from {entry} {shown(origin)}, expected dphubert, dpwavlm, dphubert_hub or "
            "dphubert_local with a path, name or Hub id that is not itself fine-tuned, or a name of yours "
            f"that is still in your files ({user_names.FILES})"
        )
    try:
        config, _ = _read(origin, is_origin=True)
    except CheckpointError as error:
        raise CheckpointError(
            f"{source}: the checkpoint that it was fine-tuned from is needed; {error}"
        ) from error
    return config, {name.removeprefix("model."): tensor for name, tensor in state.items()}
