"""Hidden states that are kept on disk: which jobs of a run may, and what they are given for it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from ...errors import ConfigError
from ...utils.config_io import merge, read_yaml
from ...utils.files import write_text
from ..recipe import Recipe
from ..tasks.spec import Task
from . import feature_cache_policy
from .upstream_spec import Upstream

OWN = ("dphubert", "dpwavlm", "dphubert_local", "dphubert_url", "dphubert_hub")


@dataclass(frozen=True)
class Cache:
    """Where hidden states are kept.

    Args:
        folder: for all models and tasks.
        limit: that it may take, such as ``100GB``.
    """

    folder: Path
    limit: str = "100GB"

    def upstreams(self, upstream: Upstream, task: Task, out: Path) -> tuple[Upstream, Upstream]:
        """The upstream for the training of a task and for its evaluation; neither changes a result.

        What may not be kept is computed every time, with ``padding: exact`` as all the rest of the run.

        Args:
            upstream: of the run.
            task: the task.
            out: folder of the run, for options.

        Raises:
            ConfigError: the upstream is not one of ours, or its options ask for another padding.
        """
        given = read_yaml(upstream.options) if upstream.options else {}
        faults = [] if upstream.name in OWN else [f"upstream is {upstream.name}, allowed: {', '.join(OWN)}"]
        if given.get("padding", "exact") != "exact":
            faults.append(f"options have padding: {given['padding']}, allowed: exact")
        ConfigError.raise_for("--cache-features", faults)
        kept = feature_cache_policy.options(self.folder, self.limit)
        late = feature_cache_policy.options(self.folder, self.limit, evaluation=True)
        trains, evaluates = (
            not feature_cache_policy.refusal(task.name, training) for training in (True, False)
        )
        plain = {"padding": "exact"}
        training = kept if trains else plain
        evaluation = plain if not evaluates else kept if trains else late
        return tuple(  # type: ignore[return-value]
            _with(upstream, merge(given, options), out) for options in (training, evaluation)
        )


def remark(task: Task) -> str:
    """What a task's hidden states cannot be kept for, or nothing."""
    return feature_cache_policy.refusal(task.name, training=bool(task.best))


def size(recipe: Recipe, configs: list[dict], measured: dict) -> str:
    """What the hidden states of a prepared task take, for a line.

    Args:
        recipe: of the task.
        configs: of its parts, placeholders filled in.
        measured: what is known of the upstream.

    Raises:
        DataError: how much audio there is cannot be told.
    """
    from .audio_duration import seconds

    # Parts of the same length are cuts through the same corpus.
    total = sum({round(seconds(recipe.task, config), 3) for config in configs})
    taken = feature_cache_policy.needed(total, measured["layers"], measured["width"], measured["stride"])
    return feature_cache_policy.Estimate(total, taken).text()


def _with(upstream: Upstream, options: dict, out: Path) -> Upstream:
    kept = options.get("features")
    name = "options" if kept is None else "options-evaluated" if kept.get("evaluation") else "options-kept"
    path = out / f"{name}.yaml"
    text = yaml.safe_dump(options, sort_keys=False)
    if not path.exists() or path.read_text(encoding="utf8") != text:
        write_text(path, text)
    return replace(upstream, options=path)
