"""Stand-ins for packages that s3prl imports although SUPERB uses little or nothing of them.

Each of these packages is old or large. If one is missing, only the module that imports it sees the
stand-in, which is removed again once that module has been imported. What SUPERB does call is implemented
here, with the same results.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from ..errors import RunError
from .mask_downstreams import DOWNSTREAMS
from .patch import Patch, Undo

Contents = Mapping[str, Callable[[], Mapping[str, Any]]]
"""Name of a stand-in module -> function that returns its attributes."""


def _strtobool(value: str) -> int:
    """Convert a word to 1 or 0, like ``distutils.util.strtobool``."""
    low = value.lower()
    if low in ("y", "yes", "t", "true", "on", "1"):
        return 1
    if low in ("n", "no", "f", "false", "off", "0"):
        return 0
    raise ValueError(f"truth value is {value!r}, allowed: yes, no, true, false, on, off, 1, 0")


class _MissingAttribute:
    """Anything else that is read from a stand-in; it fails when called, not when imported.

    Raises:
        RunError: on a call.
    """

    def __init__(self, package: str, name: str) -> None:
        self._package, self._name = package, name

    def __getattr__(self, name: str) -> _MissingAttribute:
        if name.startswith("__"):
            raise AttributeError(name)
        return _MissingAttribute(self._package, f"{self._name}.{name}")

    def __call__(self, *args, **kwargs):
        raise RunError(f"{self._name} is needed here: pip install {self._package}")


def _sampler() -> dict[str, Any]:
    from .catalyst import DistributedSamplerWrapper

    return {"DistributedSamplerWrapper": DistributedSamplerWrapper}


def _metrics() -> dict[str, Any]:
    from .asteroid import get_metrics

    return {"get_metrics": get_metrics}


def _losses() -> dict[str, Any]:
    from .asteroid import PITLossWrapper

    return {"PITLossWrapper": PITLossWrapper}


def _distributions() -> dict[str, Any]:
    from importlib import metadata

    return {"get_distribution": metadata.distribution}


def _distances() -> dict[str, Any]:
    from ..utils.edit_distance import edit_distance

    return {"eval": edit_distance}


def _missing(package: str) -> bool:
    if package in sys.modules:
        return False
    try:
        return importlib.util.find_spec(package) is None
    except ValueError:  # a module without a spec, inserted by other code
        return False


def _stand_in(package: str, modules: Contents) -> Callable[[Any], Undo]:
    def apply(_: Any) -> Undo:
        for name, contents in modules.items():
            module: Any = ModuleType(name, f"Stand-in for {name}, which is not installed.")
            module.__dict__.update(contents())
            module.__path__ = []
            module.__getattr__ = _MissingAttribute(package, name).__getattr__
            sys.modules[name] = module

        def undo() -> None:
            for name in modules:
                sys.modules.pop(name, None)

        return undo

    return apply


def _patch(package: str, module: str, use: str, modules: Contents, versions: str = "s3prl 0.4.18") -> Patch:
    return Patch(
        name=f"{package} absent ({module.removeprefix('s3prl.')})",
        module=module,
        reason=f"{module} imports {package} for {use}",
        versions=f"{versions} where {package} is not installed",
        needed=lambda _: _missing(package),
        apply=_stand_in(package, modules),
        early=True,
    )


_DISTUTILS = {"distutils": dict, "distutils.util": lambda: {"strtobool": _strtobool}}
_CATALYST = {"catalyst": dict, "catalyst.data": dict, "catalyst.data.sampler": _sampler}
_ASTEROID = {"asteroid": dict, "asteroid.metrics": _metrics, "asteroid.losses": _losses}
_DISTANCES = {"editdistance": _distances}
_RESOURCES = {"pkg_resources": _distributions}
_DCASE = {"dcase_util": dict, "dcase_util.containers": dict}

PATCHES = (
    _patch("catalyst", "s3prl.downstream.speech_commands.expert", "KS in several processes", _CATALYST),
    _patch("sox", "s3prl.downstream.sv_voxceleb1.dataset", "a class that it never uses", {"sox": dict}),
    _patch("sed_eval", "s3prl.task._hear_score", "HEAR's event scores", {"sed_eval": dict}),
    _patch("dcase_util", "s3prl.task._hear_score", "HEAR's event scores", _DCASE),
    _patch("more_itertools", "s3prl.task.event_prediction", "HEAR's events", {"more_itertools": dict}),
    _patch("distutils", "s3prl.upstream.mockingjay.builder", "strtobool", _DISTUTILS),
    _patch("distutils", "s3prl.upstream.distiller.builder", "strtobool", _DISTUTILS),
    *(
        _patch("editdistance", f"s3prl.{name}", "error rates; it has no wheel for Python 3.13", _DISTANCES)
        for name in ("metric.common", "downstream.asr.expert", "downstream.ctc.metric")
    ),
    _patch("editdistance", "s3prl.downstream.speech_translation.expert", "error rates", _DISTANCES),
    _patch("pkg_resources", "pyworld", "its version; VC's score needs it", _RESOURCES, "pyworld 0.3.5"),
    _patch("pkg_resources", "webrtcvad", "its version; s3prl's evaluate.py needs it", _RESOURCES, "2.0.10"),
    *(
        _patch("asteroid", f"s3prl.downstream.{name}.expert", "STOI, PESQ, SI-SDR and one loss", _ASTEROID)
        for name in DOWNSTREAMS
    ),
)
