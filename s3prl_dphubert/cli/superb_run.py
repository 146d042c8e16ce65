"""Commands that run SUPERB: ``superb run``, ``superb recipe`` and ``superb status``."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..superb.run.plan import RunPlan

INTERRUPTED = 130


def add(group: Any) -> None:
    """Add the commands of this module to those of ``superb``."""
    run = group.add_parser("run", help="prepare, train and evaluate tasks, from data to score.json")
    run.set_defaults(run=_run)
    run.add_argument("--upstream", required=True, metavar="NAME", help="as after s3prl's -u: dphubert, …")
    run.add_argument("--ckpt", default="", metavar="PATH", help="as after -k, for dphubert_local and others")
    run.add_argument("--options", type=Path, metavar="YAML", help="as after -g: precision, padding")
    run.add_argument("--name", default="", help="what reports call it (default the upstream or checkpoint)")
    run.add_argument(
        "--tasks", default="superb", metavar="pr,asr", help="which; superb (the ten, default), all"
    )
    run.add_argument("--data", type=Path, required=True, metavar="ROOT", help="folder of all corpora")
    run.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of this upstream's tasks")
    run.add_argument(
        "--recipes", metavar="DIR", help="other recipes: a folder of them, or free_superb, which ships"
    )
    run.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="another value, TASK.FIELD for one task",
    )
    run.add_argument("--sweep", metavar="lr", help="try the recipe's learning rates, or lr=1e-3,1e-4")
    run.add_argument(
        "--sweep-steps",
        type=int,
        default=0,
        metavar="STEPS",
        help="train each rate so long first, and only the two best to the end",
    )
    run.add_argument("--seed", type=int, default=1337, help="of all trainings (default 1337)")
    run.add_argument("--device", default="", help="cuda or cpu (default cuda if there is a GPU)")
    run.add_argument("--gpus", default="", metavar="0,1", help="one job on each")
    run.add_argument("--jobs", type=int, default=1, help="jobs at a time on the CPU (default 1)")
    run.add_argument("--processes", type=int, default=1, help="of one training, each on its GPU (torchrun)")
    run.add_argument(
        "--cache-features", type=Path, metavar="DIR", help="keep hidden states there (padding: exact)"
    )
    run.add_argument("--cache-limit", default="100", metavar="GB", help="that they may take (default 100)")
    run.add_argument(
        "--trained",
        type=Path,
        metavar="RUN",
        help="train nothing: evaluate that run's downstreams with this upstream",
    )
    run.add_argument(
        "--any-count",
        action="store_true",
        help="accept other corpora than SUPERB's, for no place in the score",
    )
    run.add_argument("--check", action="store_true", help="only say what is missing")

    status = group.add_parser("status", help="what of a run is done, running, failed or waiting")
    status.set_defaults(run=_status)
    status.add_argument("folder", type=Path, metavar="DIR", help="folder of the run")

    recipe = group.add_parser("recipe", help="print a task's configuration for s3prl's run_downstream -c")
    recipe.set_defaults(run=_recipe)
    recipe.add_argument("task", metavar="TASK", help="its name, such as ks")
    recipe.add_argument("--part", default="", help="fold, language or speaker (default the first)")
    recipe.add_argument("--data", type=Path, required=True, metavar="ROOT", help="folder of all corpora")
    recipe.add_argument("--upstream", default="dphubert", metavar="NAME", help="decides the learning rate")
    recipe.add_argument("--recipes", metavar="DIR", help="as for superb run")
    recipe.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="as for superb run")


def _run(arguments: argparse.Namespace) -> int:
    from ..superb.run import preflight, runner

    plan = _plan(arguments)
    rows = preflight.check(plan)
    print(preflight.table(rows), flush=True)
    if arguments.check:
        return runner.LEFT_OUT if any(row.missing for row in rows) else 0
    print(flush=True)
    try:
        outcome = runner.run(plan, rows)
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    if outcome.failed:
        print(f"\nfailed: {', '.join(outcome.failed)}; s3prl-dphubert superb status {plan.out} says where")
    if outcome.done:
        print(f"\ndone: {', '.join(outcome.done)}; s3prl-dphubert superb report {plan.out}")
    return outcome.code


def _plan(arguments: argparse.Namespace) -> RunPlan:
    from ..superb.recipe import recipe_root
    from ..superb.run.feature_cache import FeatureCache, is_ours
    from ..superb.run.plan import RunPlan, choose
    from ..superb.run.upstream_spec import UpstreamSpec

    cache, limit = arguments.cache_features, arguments.cache_limit
    limit = f"{limit}GB" if limit.replace(".", "", 1).isdigit() else limit
    return RunPlan(
        upstream=UpstreamSpec(arguments.upstream, arguments.ckpt, arguments.options, arguments.name),
        recipes=choose(
            arguments.tasks,
            recipe_root(arguments.recipes) if arguments.recipes else None,
            arguments.set,
            is_ours(arguments.upstream),
        ),
        data=Path(os.path.abspath(arguments.data)),
        out=Path(os.path.abspath(arguments.out)),
        sweep=arguments.sweep is not None,
        rates=_rates(arguments.sweep),
        sweep_steps=arguments.sweep_steps,
        seed=arguments.seed,
        device=arguments.device or _device(),
        gpus=tuple(gpu.strip() for gpu in arguments.gpus.split(",") if gpu.strip()),
        jobs=arguments.jobs,
        processes=arguments.processes,
        cache=FeatureCache(Path(os.path.abspath(cache)), limit) if cache else None,
        any_count=arguments.any_count,
        trained=Path(os.path.abspath(arguments.trained)) if arguments.trained else None,
        command=shlex.join(["s3prl-dphubert", *sys.argv[1:]]),
    )


def _recipe(arguments: argparse.Namespace) -> None:
    """Prepare what the task reads, and print its configuration; all else goes to standard error."""
    import yaml

    from ..errors import ConfigError, DataError
    from ..superb.prepare import STEPS
    from ..superb.recipe import recipe_root
    from ..superb.run.feature_cache import is_ours
    from ..superb.run.plan import RunPlan, choose
    from ..superb.run.upstream_spec import UpstreamSpec
    from ..superb.tasks import find

    root = recipe_root(arguments.recipes) if arguments.recipes else None
    name = find(arguments.task).name
    recipes = choose(name, root, arguments.set, is_ours(arguments.upstream))
    data = Path(os.path.abspath(arguments.data))
    plan = RunPlan(UpstreamSpec("fbank"), recipes, data, out=data)
    (recipe,) = recipes
    parts = {part.name: part for part in recipe.task.parts}
    part = parts.get(arguments.part or next(iter(parts)))
    if part is None:
        raise ConfigError(f"--part is {arguments.part!r}, allowed: {', '.join(parts)}")
    if missing := recipe.missing(data):
        raise DataError(f"{data}: lacks {', '.join(missing)}")
    prepared = plan.prepared(recipe)
    config = recipe.fill(plan.template(recipe, part), data, prepared)
    for name in recipe.needs.prepare:
        STEPS[name](data, prepared, config)
    print(f"# s3prl's run_downstream: -d {recipe.task.downstream} -c this file")
    print(yaml.safe_dump(config, sort_keys=False), end="")


def _rates(sweep: str | None) -> tuple[float, ...]:
    """Parse the learning rates of ``lr=1e-3,1e-4``; ``lr`` alone has none."""
    from ..errors import ConfigError

    name, _, values = (sweep or "lr").partition("=")
    try:
        if name == "lr":
            return tuple(float(value) for value in values.split(",") if value.strip())
    except ValueError:
        pass
    raise ConfigError(f"--sweep is {sweep!r}, allowed: lr, or lr=1e-3,1e-4")


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _status(arguments: argparse.Namespace) -> None:
    from ..superb.run.status import status, table

    print(table(status(arguments.folder)))
