"""Run the ``run_pretrain.py`` of an installed s3prl, from any working directory."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType, SimpleNamespace

import torch

from .. import compat
from ..compat import s3prl_home
from ..errors import RunError

RECIPES = Path(__file__).parent
NAME = "dphubert"
LISTED = "pretrain/"  # folder that the script lists for the choices of -u


def run_pretrain(arguments: Sequence[str]) -> None:
    """Do what ``python run_pretrain.py ARGUMENTS`` does in a checkout that is linked to this package.

    s3prl's script expects to be started in its own folder, where it lists ``pretrain/`` and from which it
    imports ``pretrain``, ``optimizers`` and others. Here it finds them from any working directory. With
    ``-u dphubert``, ``-c`` and ``-g`` default to the published stage 1.

    Args:
        arguments: command-line arguments of the script.

    Raises:
        RunError: s3prl is not installed, or another module ``pretrain`` has been imported.
        DPHubertError: as :class:`.UpstreamPretrainExpert`.
    """
    home = s3prl_home()
    if str(home) not in sys.path:
        sys.path.insert(0, str(home))
    compat.apply()
    script = _load(home / "run_pretrain.py")
    _add_recipe(home)
    own_argv, sys.argv = sys.argv, ["run_pretrain.py", *with_configurations(arguments)]
    try:
        script.main()
    finally:
        sys.argv = own_argv


def with_configurations(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with the default files of ``-c`` and ``-g``, if this recipe is chosen.

    Without a GPU, ``--device`` is ``cpu`` by default rather than s3prl's ``cuda``.
    """
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("-u", "--upstream")
    parser.add_argument("-c", "--config")
    parser.add_argument("-g", "--upstream_config")
    parser.add_argument("--device")
    parsed, _ = parser.parse_known_args(list(arguments))
    completed = list(arguments)
    if parsed.upstream == NAME:
        for option, value, file in (
            ("-c", parsed.config, "config_runner.yaml"),
            ("-g", parsed.upstream_config, "config_model.yaml"),
        ):
            completed += [] if value else [option, str(RECIPES / NAME / file)]
        if parsed.device is None and not torch.cuda.is_available():
            completed += ["--device", "cpu"]
    return completed


def _load(path: Path) -> ModuleType:
    """Load the script as a module that offers this recipe beside s3prl's own."""
    spec = spec_from_file_location("run_pretrain", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise RunError(f"{path}: missing, allowed: s3prl 0.4.18 with its run_pretrain.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)

    def listdir(folder: str = ".") -> list[str]:
        if folder != LISTED:
            return os.listdir(folder)
        recipes = (entry.name for entry in (path.parent / folder).iterdir() if entry.is_dir())
        return sorted({NAME, *(name for name in recipes if not name.startswith("_"))})

    # The script's own name for os; the module itself stays as it is for everybody else.
    vars(module)["os"] = SimpleNamespace(**{**vars(os), "listdir": listdir})
    return module


def _add_recipe(home: Path) -> None:
    """Let s3prl import ``pretrain.dphubert``."""
    package = importlib.import_module("pretrain")
    folders = list(package.__path__)
    if folders[0] != str(home / "pretrain"):
        raise RunError(f"pretrain is imported from {folders[0]} already; start in another process")
    if str(RECIPES) not in folders:
        package.__path__.append(str(RECIPES))
