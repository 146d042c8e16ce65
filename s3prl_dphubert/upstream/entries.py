"""The upstreams, as s3prl calls them: functions that take a checkpoint and return an upstream.

s3prl passes ``ckpt`` (its ``-k``), ``model_config`` (``-g``) and ``refresh`` (``-r``); further keywords
are options, see :class:`~s3prl_dphubert.upstream.cached_expert.CachedOptions`. Heavy imports wait for the first
call.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from ..model import SpeechModel
    from .expert import UpstreamExpert

__all__ = ["dphubert", "dphubert_hub", "dphubert_local", "dphubert_url", "dpwavlm"]

Source = str | Path | None


@dataclass(frozen=True)
class Released:
    """A model that the authors of DPHuBERT released on the Hugging Face Hub.

    Args:
        entry: its name here.
        filename: its file.
        parameters: how many it has.
        repository: where it lies.
    """

    entry: str
    filename: str
    parameters: int
    repository: str = "pyf98/DPHuBERT"

    def load(self, refresh: bool) -> SpeechModel:
        """Fetch the file if need be, and check that it is the model it says.

        Raises:
            CheckpointError: it cannot be fetched, or is another model.
        """
        from ..checkpoints.hub import DownloadError, fetch
        from ..checkpoints.load import load_model

        try:
            path = fetch(self.repository, self.filename, force=refresh)
        except DownloadError as error:
            raise type(error)(f"{error}: -u dphubert_local -k FILE") from error
        model = load_model(path)
        found = sum(parameter.numel() for parameter in model.parameters())
        if found != self.parameters:
            raise CheckpointError(
                f"{self.entry}: {path} has {found:,} parameters, expected {self.parameters:,}; "
                "fetch it again with refresh (-r), or use another file: -u dphubert_local -k FILE"
            )
        return model


DPHUBERT = Released("dphubert", "DPHuBERT-sp0.75.pth", 23_585_946)
DPWAVLM = Released("dpwavlm", "DPWavLM-sp0.75.pth", 23_586_325)


def dphubert(
    ckpt: Source = None, model_config: Source = None, refresh: bool = False, **options: Any
) -> UpstreamExpert:
    """DPHuBERT as released: HuBERT Base compressed to 23.6 M parameters.

    Args:
        ckpt: must be left out.
        model_config: YAML file with options.
        refresh: download it again even if it is in the cache.
        options: options, before those of the file.

    Raises:
        DPHubertError: it cannot be fetched or is not what it should be, or an option is wrong.
    """
    return _released(DPHUBERT, ckpt, model_config, refresh, options)


def dpwavlm(
    ckpt: Source = None, model_config: Source = None, refresh: bool = False, **options: Any
) -> UpstreamExpert:
    """DPWavLM as released: WavLM Base+ compressed to 23.6 M parameters; arguments of :func:`dphubert`."""
    return _released(DPWAVLM, ckpt, model_config, refresh, options)


def dphubert_local(
    ckpt: Source = None, model_config: Source = None, refresh: bool = False, **options: Any
) -> UpstreamExpert:
    """A compressed model on this machine.

    Args:
        ckpt: checkpoint directory, file in the released format (``.pth``), checkpoint of
            ``run_pretrain.py -u dphubert`` (``states-N.ckpt``), whose model is cut as it would be then,
            or a file that ``s3prl-dphubert export`` wrote (``.onnx``, ``.xml``).
        model_config: YAML file with options.
        refresh: makes no difference.
        options: options, before those of the file.

    Raises:
        DPHubertError: the checkpoint cannot be loaded, or an option is wrong.
    """
    path = Path(_given(ckpt, "dphubert_local", "a checkpoint directory or a released .pth"))
    if path.suffix in (".onnx", ".xml"):
        from .runtime_expert import CompiledExpert

        return CompiledExpert(path, model_config, options)
    return _expert(lambda: _load_local(path), model_config, options)


def dphubert_url(
    ckpt: Source = None, model_config: Source = None, refresh: bool = False, **options: Any
) -> UpstreamExpert:
    """A file in the released format (``.pth``) at a URL, which is downloaded once.

    Args:
        ckpt: http(s) URL.
        model_config: YAML file with options.
        refresh: download it again.
        options: options, before those of the file.

    Raises:
        DPHubertError: it cannot be fetched or loaded, or an option is wrong.
    """
    from ..checkpoints.hub import fetch_url
    from ..checkpoints.load import load_model

    url = _given(ckpt, "dphubert_url", "the URL of a released .pth")

    def load() -> SpeechModel:
        path = fetch_url(url, refresh)
        try:
            return load_model(path)
        except CheckpointError as error:
            raise CheckpointError(f"{error}; it came from {url}, fetch it again with refresh (-r)") from error

    return _expert(load, model_config, options)


def dphubert_hub(
    ckpt: Source = None, model_config: Source = None, refresh: bool = False, **options: Any
) -> UpstreamExpert:
    """A checkpoint directory on the Hugging Face Hub.

    Args:
        ckpt: ``user/repo`` or ``user/repo@revision``.
        model_config: YAML file with options.
        refresh: download it again.
        options: options, before those of the file.

    Raises:
        DPHubertError: it cannot be fetched or loaded, or an option is wrong.
    """
    from ..checkpoints.directory import CONFIG, WEIGHTS
    from ..checkpoints.hub import MissingError, Repository
    from ..checkpoints.load import load_hub

    name = _given(ckpt, "dphubert_hub", "user/repo or user/repo@revision")

    def load() -> SpeechModel:
        repository = Repository.parse(name)
        if refresh:
            with suppress(MissingError):  # repositories of other formats name their weights otherwise
                repository.fetch(CONFIG, force=True)
                repository.fetch(WEIGHTS, force=True)
        return load_hub(repository)

    return _expert(load, model_config, options)


def _released(
    model: Released, ckpt: Source, model_config: Source, refresh: bool, options: dict[str, Any]
) -> UpstreamExpert:
    if ckpt is not None:
        allowed = "none; for another checkpoint use dphubert_local, dphubert_url or dphubert_hub"
        raise ConfigError(f"{model.entry}: ckpt (-k) is {str(ckpt)!r}, allowed: {allowed}")
    return _expert(lambda: model.load(refresh), model_config, options)


def _load_local(path: Path) -> SpeechModel:
    if path.suffix == ".ckpt" and path.is_file():
        from ..pretrain.runner_checkpoint import load_states

        return load_states(path)
    from ..checkpoints.load import load_model

    return load_model(path)


def _given(ckpt: Source, entry: str, allowed: str) -> str:
    if ckpt is None or not str(ckpt):
        raise ConfigError(f"{entry}: ckpt (-k) is missing, allowed: {allowed}")
    return str(ckpt)


def _expert(load: Callable[[], SpeechModel], model_config: Source, options: dict[str, Any]) -> UpstreamExpert:
    """Check the options before anything is downloaded."""
    from .cached_expert import CachedExpert, CachedOptions
    from .expert import UpstreamExpert

    checked = CachedOptions.read(model_config, options)
    return UpstreamExpert(load(), checked) if checked.kept is None else CachedExpert(load(), checked)
