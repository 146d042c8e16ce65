"""The upstreams as s3prl calls them: functions that take a checkpoint and return an upstream.

s3prl passes ``ckpt`` (its ``-k``), ``model_config`` (``-g``) and ``refresh`` (``-r``). All other keywords
are options, see :class:`~s3prl_dphubert.upstream.cached_expert.CachedOptions`; they override those of the
file that ``model_config`` names. Imports of torch wait for the first call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checkpoints.user_names import NamedCheckpoint
from ..errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from ..model import SpeechModel
    from .expert import UpstreamExpert

__all__ = ["dphubert", "dphubert_hub", "dphubert_local", "dphubert_url", "dpwavlm"]

Source = str | Path | None


@dataclass(frozen=True)
class ReleasedModel:
    """A compressed model that the authors of DPHuBERT released on the Hugging Face Hub.

    Args:
        entry: name of its upstream, a key of :data:`~s3prl_dphubert.checkpoints.hub.RELEASED`.
        parameters: number of its parameters.
    """

    entry: str
    parameters: int

    def load(self, refresh: bool) -> SpeechModel:
        """Download the file if it is not in the cache, and load it.

        Raises:
            CheckpointError: the download failed, or the file holds another model.
        """
        from ..checkpoints.hub import RELEASED, DownloadError
        from ..checkpoints.load import load_hub

        source = RELEASED[self.entry]
        try:
            model = load_hub(source, refresh)
        except DownloadError as error:
            raise type(error)(f"{error}: -u dphubert_local -k FILE") from error
        parameters = sum(parameter.numel() for parameter in model.parameters())
        if parameters != self.parameters:
            raise CheckpointError(
                f"{self.entry}: {source} has {parameters:,} parameters, expected {self.parameters:,}; "
                "fetch it again with refresh (-r), or use another file: -u dphubert_local -k FILE"
            )
        return model


@dataclass(frozen=True)
class NamedEntry:
    """A checkpoint that the user has named, as s3prl calls it: like the functions of this module.

    Args:
        checkpoint: the checkpoint and its options.
    """

    checkpoint: NamedCheckpoint

    def __call__(
        self, ckpt: Source = None, model_config: Source = None, refresh: bool = False, **options: Any
    ) -> UpstreamExpert:
        """Return the upstream.

        Args:
            ckpt: must be left out.
            model_config: YAML file with options that override those of the name.
            refresh: download the model even if it is in the cache.
            options: options that override those of the file and of the name.

        Raises:
            DPHubertError: the model cannot be downloaded or loaded, or an option is wrong.
        """
        name, source = self.checkpoint.name, self.checkpoint.ckpt
        if ckpt is not None:
            raise ConfigError(f"{name}: ckpt (-k) is {str(ckpt)!r}, allowed: none, as it stands for {source}")
        from .options import read_options

        chosen = read_options(Path(model_config)) if model_config else {}
        return dphubert_local(source, None, refresh, **{**self.checkpoint.options, **chosen, **options})


DPHUBERT = ReleasedModel("dphubert", 23_585_946)
DPWAVLM = ReleasedModel("dpwavlm", 23_586_325)


def dphubert(
    ckpt: Source = None, model_config: Source = None, refresh: bool = False, **options: Any
) -> UpstreamExpert:
    """DPHuBERT as released: HuBERT Base compressed to 23.6 M parameters.

    Args:
        ckpt: must be left out.
        model_config: YAML file with options.
        refresh: download the model even if it is in the cache.
        options: options that override those of the file.

    Raises:
        DPHubertError: the model cannot be downloaded or loaded, or an option is wrong.
    """
    return _released(DPHUBERT, ckpt, model_config, refresh, options)


def dpwavlm(
    ckpt: Source = None, model_config: Source = None, refresh: bool = False, **options: Any
) -> UpstreamExpert:
    """DPWavLM as released: WavLM Base+ compressed to 23.6 M parameters. Arguments as :func:`dphubert`."""
    return _released(DPWAVLM, ckpt, model_config, refresh, options)


def dphubert_local(
    ckpt: Source = None, model_config: Source = None, refresh: bool = False, **options: Any
) -> UpstreamExpert:
    """Any model: on this machine, by name or on the Hub.

    Args:
        ckpt: source as for :func:`s3prl_dphubert.load_model` (a checkpoint directory, ``.pth``, ``.pt``,
            ``states-N.ckpt``, a name such as ``hubert_base``, a Hub id …), or a file that
            ``s3prl-dphubert export`` wrote (``.onnx``, ``.xml``).
        model_config: YAML file with options.
        refresh: download the model even if it is in the cache.
        options: options that override those of the file.

    Raises:
        DPHubertError: the model cannot be loaded, or an option is wrong.
    """
    if ckpt is not None and Path(ckpt).suffix in (".onnx", ".xml"):
        return _exported(Path(ckpt), model_config, options)
    return _any("dphubert_local", ckpt, model_config, refresh, options)


def dphubert_url(
    ckpt: Source = None, model_config: Source = None, refresh: bool = False, **options: Any
) -> UpstreamExpert:
    """A model file at a URL, which is downloaded once.

    Args:
        ckpt: http(s) URL of a ``.pth`` or another file that :func:`s3prl_dphubert.load_model` takes.
        model_config: YAML file with options.
        refresh: download the file even if it is in the cache.
        options: options that override those of the file.

    Raises:
        DPHubertError: the model cannot be downloaded or loaded, or an option is wrong.
    """
    from ..checkpoints.hub import is_url

    if ckpt is not None and not is_url(str(ckpt)):
        raise ConfigError(f"dphubert_url: ckpt (-k) is {str(ckpt)!r}, expected a URL: http(s)://…/FILE")
    return _any("dphubert_url", ckpt, model_config, refresh, options)


def dphubert_hub(
    ckpt: Source = None, model_config: Source = None, refresh: bool = False, **options: Any
) -> UpstreamExpert:
    """A model on the Hugging Face Hub.

    Args:
        ckpt: ``user/repo``, ``user/repo@revision`` or ``user/repo/file.pth``; local paths do not count.
        model_config: YAML file with options.
        refresh: download the model even if it is in the cache.
        options: options that override those of the file.

    Raises:
        DPHubertError: the model cannot be downloaded or loaded, or an option is wrong.
    """
    from ..checkpoints.load import load_hub

    return _any("dphubert_hub", ckpt, model_config, refresh, options, load_hub)


def _released(
    model: ReleasedModel, ckpt: Source, model_config: Source, refresh: bool, options: dict[str, Any]
) -> UpstreamExpert:
    if ckpt is not None:
        allowed = "none; for another checkpoint use dphubert_local, dphubert_url or dphubert_hub"
        raise ConfigError(f"{model.entry}: ckpt (-k) is {str(ckpt)!r}, allowed: {allowed}")
    return _expert(lambda: model.load(refresh), model_config, options)


def _any(
    entry: str,
    ckpt: Source,
    model_config: Source,
    refresh: bool,
    options: dict[str, Any],
    load: Callable[[str, bool], SpeechModel] | None = None,
) -> UpstreamExpert:
    from ..checkpoints.load import SOURCES, load_model

    if ckpt is None or not str(ckpt):
        raise ConfigError(f"{entry}: ckpt (-k) is missing, expected {SOURCES}")
    return _expert(lambda: (load or load_model)(str(ckpt), refresh), model_config, options)


def _expert(load: Callable[[], SpeechModel], model_config: Source, options: dict[str, Any]) -> UpstreamExpert:
    """Check the options, which takes no time, before the model is downloaded or loaded."""
    from .cached_expert import CachedExpert, CachedOptions
    from .expert import UpstreamExpert

    checked = CachedOptions.read(model_config, options)
    return UpstreamExpert(load(), checked) if checked.features is None else CachedExpert(load(), checked)


def _exported(path: Path, model_config: Source, options: dict[str, Any]) -> UpstreamExpert:
    """Return the upstream of an exported file, which runs on the CPU and without gradients."""
    from ..export.runtime import load_exported
    from .expert import ExportedExpert
    from .options import Options

    checked = Options.read(model_config, options)
    if checked.precision != Options.precision:
        raise ConfigError(
            f"precision is {checked.precision!r}, allowed for {path.suffix} files: none, "
            "they were exported in one"
        )
    return ExportedExpert(load_exported(path), checked)  # type: ignore[arg-type]  # has a model's interface
