"""The cache of hidden states in a run: which trainings and evaluations may use it, and their options."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from ...checkpoints import user_names
from ...errors import ConfigError
from ...upstream.downstream_sampling import RANDOM_CROPS
from ...utils.config_io import merge, read_yaml
from ...utils.files import write_text
from ..recipe import TaskRecipe
from ..tasks.spec import SuperbTask
from . import feature_cache_policy
from .upstream_spec import UpstreamSpec

UPSTREAMS = ("dphubert", "dpwavlm", "dphubert_local", "dphubert_url", "dphubert_hub")
"""Upstreams of this package, which can keep hidden states."""


def is_ours(name: str) -> bool:
    """Return whether an upstream is of this package, or a name of the user's for a checkpoint."""
    return name in UPSTREAMS or user_names.find(name) is not None


@dataclass(frozen=True)
class FeatureCache:
    """A folder of hidden states.

    Args:
        folder: for all models and tasks.
        limit: size that the folder may reach, such as ``100GB``.

    Raises:
        ConfigError: the limit is no size above 0.
    """

    folder: Path
    limit: str = "100GB"

    def __post_init__(self) -> None:
        from ...upstream.cached_expert import FeatureOptions

        FeatureOptions(str(self.folder), self.limit)

    def upstreams(
        self, upstream: UpstreamSpec, task: SuperbTask, out: Path
    ) -> tuple[UpstreamSpec, UpstreamSpec]:
        """Return the upstream with the options for the training of a task, and for its evaluation.

        The cache changes no result. Where hidden states are not kept, they are computed every time, with
        ``padding: exact`` as in the rest of the run.

        Args:
            upstream: of the run.
            task: the task.
            out: folder of the run, to write the options into.

        Raises:
            ConfigError: the upstream is not one of this package, or its options ask for another padding.
        """
        given = read_yaml(upstream.options) if upstream.options else {}
        faults = []
        if not is_ours(upstream.name):
            allowed = f"{', '.join(UPSTREAMS)}, or a name in {user_names.FILES}"
            faults.append(f"upstream is {upstream.name}, allowed: {allowed}")
        if given.get("padding", "exact") != "exact":
            faults.append(f"options have padding: {given['padding']}, allowed: exact")
        ConfigError.raise_for("--cache-features", faults)
        keeps_training = not feature_cache_policy.refusal(task, training=True)
        keeps_evaluation = not feature_cache_policy.refusal(task, training=False)
        uncached: tuple[str, dict[str, Any]] = "options", {"padding": "exact"}
        whole = task.downstream in RANDOM_CROPS  # but this recipe's files are too short to be cropped
        cached = "options-kept", feature_cache_policy.options(self.folder, self.limit, evaluation=whole)
        cached_evaluation = (
            "options-evaluated",
            feature_cache_policy.options(self.folder, self.limit, evaluation=True),
        )
        training = cached if keeps_training else uncached
        evaluation = uncached if not keeps_evaluation else cached if keeps_training else cached_evaluation

        def with_options(name: str, options: dict[str, Any]) -> UpstreamSpec:
            path = out / f"{name}.yaml"
            text = yaml.safe_dump(merge(given, options), sort_keys=False)
            if not path.exists() or path.read_text(encoding="utf8") != text:
                write_text(path, text)
            return replace(upstream, options=path)

        return with_options(*training), with_options(*evaluation)


def refusal(task: SuperbTask) -> str:
    """Return why a task's hidden states are not kept for its training, or without one for its evaluation."""
    return feature_cache_policy.refusal(task, training=task.trained)


def describe_size(recipe: TaskRecipe, configs: list[dict[str, Any]], measured: dict[str, Any]) -> str:
    """Estimate the hours of audio and the bytes of hidden states of a prepared task, in words.

    Args:
        recipe: of the task.
        configs: of its parts, placeholders filled in.
        measured: result of :meth:`.UpstreamSpec.measured`.

    Raises:
        DataError: the amount of audio cannot be found out.
    """
    from .corpus import seconds

    # Parts of the same length are folds of the same corpus.
    total = sum({round(seconds(recipe.task, config), 3) for config in configs})
    size = feature_cache_policy.needed(total, measured["layers"], measured["width"], measured["stride"])
    return feature_cache_policy.CacheEstimate(total, size).text()
