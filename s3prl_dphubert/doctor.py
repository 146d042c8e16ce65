"""Diagnosis of this environment: what works, what does not, and what to do about it."""

from __future__ import annotations

import io
import logging
import os
import platform
import shutil
import sys
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from . import autoload, compat
from .utils.environment import S3PRL, distribution_version, package_version
from .utils.files import user_cache_dir

if TYPE_CHECKING:
    from .superb.tasks.spec import SuperbTask

PTH = "s3prl_dphubert.pth"
COLUMNS = 110
PACKAGES = ("s3prl-dphubert", "s3prl", "torch", "torchaudio", "huggingface_hub", "transformers", "numpy")
RUNTIMES = ("onnxruntime", "openvino")


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Args:
        title: its subject.
        text: the state of it.
        broken: whether nothing works until it is repaired.
    """

    title: str
    text: str
    broken: bool = False


def examine() -> list[Finding]:
    """Examine the environment, with s3prl installed or not."""
    findings = [Finding("python", f"{platform.python_version()}, {sys.executable}"), _versions(), _route()]
    if len(installed := [name for name in S3PRL if distribution_version(name)]) > 1:
        text = (
            f"{' and '.join(installed)} write into the same folder: uninstall both, then install one of them"
        )
        findings.append(Finding("s3prl", text, broken=True))
    if not package_version("s3prl"):
        return [*findings, Finding("s3prl", "not installed: pip install s3prl==0.4.18", broken=True)]
    from .superb.tasks import all_tasks  # needs numpy, which a broken environment may lack

    with _quiet():
        registered = list(_registration())
        tasks = [_task(task) for task in all_tasks()] if not registered[0].broken else []
    return [*findings, *registered, *_repairs(), *_machine(), *tasks]


def report(findings: list[Finding]) -> str:
    """Format the findings as a table with a verdict."""
    broken = [finding.title for finding in findings if finding.broken]
    verdict = f"not usable: {', '.join(broken)}" if broken else "usable"
    rows = [*findings, Finding("verdict", verdict)]
    width = 2 + max(len(finding.title) for finding in rows)
    return "\n".join(
        textwrap.fill(
            finding.text,
            COLUMNS,
            initial_indent=finding.title.ljust(width),
            subsequent_indent=" " * width,
            break_long_words=False,
            break_on_hyphens=False,
        )
        for finding in rows
    )


def _versions() -> Finding:
    versions = (f"{name} {package_version(name) or 'absent'}" for name in PACKAGES)
    return Finding("versions", ", ".join(versions))


def _machine() -> Iterator[Finding]:
    """Describe what is beside s3prl: GPUs, runtimes of exported files, disk, login to the Hub."""
    import torch

    from .model import ModelConfig
    from .model.inference.precision_choice import choose

    with _quiet():  # its own line says the same
        choice = choose(ModelConfig(), torch.device("cpu"))
    yield Finding("processor", str(choice).removeprefix("precision auto: "))
    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    yield Finding("GPU", ", ".join(gpus) or "none that torch sees")
    versions = {name: package_version(name) for name in RUNTIMES}
    yield Finding("exports", ", ".join(f"{name} {v or 'absent'}" for name, v in versions.items()))
    cache = place = user_cache_dir()
    while not place.exists():
        place = place.parent
    yield Finding("cache", f"{cache}, {shutil.disk_usage(place).free / 1e9:.0f} GB free")
    from huggingface_hub import get_token

    yield Finding("Hub", "logged in" if get_token() else "not logged in; only gated repositories need it")


def _route() -> Finding:
    """Describe how upstreams get onto s3prl.hub in new processes of this environment."""
    files = [Path(folder, PTH) for folder in sys.path if Path(folder, PTH).is_file()]
    place = ", ".join(map(str, files)) or f"no {PTH} in {Path(__file__).parents[1]}"
    by_hand = "use `s3prl-dphubert run_downstream` or s3prl_dphubert.register()"
    if os.environ.get(autoload.SWITCH) == "0":
        return Finding("plugin", f"off, {autoload.SWITCH} is 0; {by_hand}")
    if autoload.started:
        return Finding("plugin", f"on, by {place}")
    return Finding("plugin", f"not by itself, {place} that this interpreter reads; {by_hand}")


def _registration() -> Iterator[Finding]:
    from .upstream import registry

    try:
        registry.register()
        yield Finding("upstreams", ", ".join(registry.registered()))
    except Exception as error:  # s3prl imports half of what is installed; anything may be wrong
        yield Finding("upstreams", f"s3prl.hub cannot be imported: {_line(error)}", broken=True)
        return
    names = [f"{name} is {each.ckpt}{_missing(each.ckpt)}" for name, each in registry.named().items()]
    names += [f"left out, {fault}" for fault in registry.left_out()]
    if names:
        yield Finding("your names", "; ".join(names))


def _missing(source: str) -> str:
    return " (missing)" if os.path.isabs(source) and not os.path.exists(source) else ""


def _repairs() -> Iterator[Finding]:
    """List the repairs that s3prl needs with the versions that are installed."""
    rows = compat.report()
    for row in rows:
        if row.error:
            yield Finding("repair failed", f"{row.name}: {row.error}", broken=True)
    applied = [row.name for row in rows if row.applied]
    idle = [row for row in rows if row.needed is None]
    names = ", ".join(applied) or "none"
    text = f"{len(applied)} made of {len(rows)}, {len(idle)} for what was not imported: {names}"
    yield Finding("repairs", text if compat.enabled() else f"off, {compat.SWITCH} is 0")


def _task(task: SuperbTask) -> Finding:
    missing = task.missing_packages()
    todo = [f"pip install {' '.join(missing)}"] if missing else []
    if task.blocked and (reason := task.blocked()):
        todo.append(reason)
    if todo:
        return Finding(task.name, "; ".join(todo))
    try:
        import_module("s3prl.downstream.runner")
        import_module(f"s3prl.downstream.{task.downstream}.expert")
    except Exception as error:
        return Finding(task.name, f"cannot be imported: {_line(error)}")
    return Finding(task.name, "ready")


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".replace("\n", " ")


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence s3prl and its dependencies while they are imported."""
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
