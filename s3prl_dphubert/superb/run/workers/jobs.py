"""Jobs of the processes that :mod:`.launcher` starts; each process has imported s3prl.

As a program, ``python -m s3prl_dphubert.superb.run.workers.jobs JOB …`` does one job in an interpreter of its
own: for a GPU, since a process that has used one cannot be forked, and for trainings by several processes.
"""

from __future__ import annotations

import ctypes
import functools
import json
import os
import signal
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from ....constants import SAMPLE_RATE
from ....errors import DPHubertError
from ....utils.files import write_text

PATIENCE = timedelta(days=7)  # process 0 evaluates alone, for hours, while the others wait
Arguments = list[str]
_DEATH_SIGNAL = 1  # Linux: PR_SET_PDEATHSIG


def load() -> None:
    """Import s3prl with this package's upstreams and repairs, and with them half of all libraries."""
    from ....upstream.registry import register

    register()
    import s3prl.run_downstream  # noqa: F401


def downstream(arguments: Arguments) -> None:
    """Run s3prl's run_downstream."""
    from s3prl import run_downstream

    sys.argv = ["run_downstream.py", *arguments]
    run_downstream.main()


def prepare(arguments: Arguments) -> None:
    """Run steps of preparation; the argument is JSON with ``steps``, ``data``, ``out`` and ``config``."""
    from ...prepare import STEPS

    request = json.loads(arguments[0])
    for name in request["steps"]:
        print(f"{name} into {request['out']}", flush=True)
        STEPS[name](Path(request["data"]), Path(request["out"]), request["config"])


def measure(arguments: Arguments) -> None:
    """Load an upstream and write its number of hidden states, width, stride, parameters and MACs to a file.

    The arguments are the file and JSON: the upstream's name on the hub and its keyword arguments.
    """
    import torch
    from s3prl import hub

    request = json.loads(arguments[1])
    if not hasattr(hub, request["name"]):
        raise DPHubertError(f"s3prl.hub has no upstream {request['name']!r}")
    model = getattr(hub, request["name"])(**request["called"]).eval()
    with torch.no_grad():
        states = model([torch.zeros(SAMPLE_RATE)])["hidden_states"]
    config: Any = getattr(getattr(model, "model", None), "config", None)
    macs = None
    if type(config).__module__.startswith("s3prl_dphubert."):
        from ....model.cost import superb_macs

        macs = int(sum(superb_macs(config).values()))
    values = {
        "layers": len(states),
        "width": states[0].shape[-1],
        "stride": int(model.get_downsample_rates("hidden_states")),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "macs": macs,
    }
    write_text(Path(arguments[0]), json.dumps(values))


def several(arguments: Arguments) -> None:
    """Run s3prl's run_downstream by torchrun; the first argument is the number of processes."""
    from torch.distributed.run import main

    count, *others = arguments
    main(["--standalone", "--nproc_per_node", count, "-m", __spec__.name, "one", *others])


def one(arguments: Arguments) -> None:
    """Run s3prl's run_downstream as one of several processes, which takes its rank as an argument."""
    import torch.distributed

    start = torch.distributed.init_process_group
    torch.distributed.init_process_group = functools.partial(start, timeout=PATIENCE)
    downstream([*arguments, "--local_rank", os.environ["LOCAL_RANK"]])


JOBS: dict[str, Callable[[Arguments], None]] = {
    "downstream": downstream,
    "prepare": prepare,
    "measure": measure,
    "several": several,
    "one": one,
}


def die_with_parent() -> None:
    """Have the system kill this process when the one that started it ends, however that ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_DEATH_SIGNAL, signal.SIGKILL)


def main() -> int:
    """Do the job that the command line names, and return the exit code."""
    die_with_parent()
    name, *arguments = sys.argv[1:]
    try:
        if name != "several":
            load()
        JOBS[name](arguments)
    except DPHubertError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
