"""What the processes do that :mod:`.launcher` starts; each has imported s3prl.

As a program,
``python -m s3prl_dphubert.superb.run.workers.jobs JOB …`` does one in an interpreter of its own: where
a GPU is used, since one that was touched cannot be forked, and for trainings by several processes.
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
    """Import s3prl with our upstreams and repairs; half of all libraries come with it."""
    from ....upstream.registry import register

    register()
    import s3prl.run_downstream  # noqa: F401


def downstream(arguments: Arguments) -> None:
    """s3prl's own run_downstream."""
    from s3prl import run_downstream

    sys.argv = ["run_downstream.py", *arguments]
    run_downstream.main()


def prepare(arguments: Arguments) -> None:
    """Steps of preparation: a JSON mapping of ``steps``, ``data``, ``out`` and ``config``."""
    from ...prepare import STEPS

    told = json.loads(arguments[0])
    for name in told["steps"]:
        print(f"{name} into {told['out']}", flush=True)
        STEPS[name](Path(told["data"]), Path(told["out"]), told["config"])


def measure(arguments: Arguments) -> None:
    """Load an upstream, and write what it is to a file: number of hidden states, stride, size, MACs.

    The arguments are the file and JSON: the upstream's name on the hub, and what it is called with.
    """
    import torch
    from s3prl import hub

    told = json.loads(arguments[1])
    if not hasattr(hub, told["name"]):
        raise DPHubertError(f"s3prl.hub has no upstream {told['name']!r}")
    model = getattr(hub, told["name"])(**told["called"]).eval()
    with torch.no_grad():
        states = model([torch.zeros(SAMPLE_RATE)])["hidden_states"]
    found: dict[str, Any] = {"layers": len(states), "width": states[0].shape[-1]}
    found["stride"] = int(model.get_downsample_rates("hidden_states"))
    found["parameters"] = sum(parameter.numel() for parameter in model.parameters())
    found["macs"] = None
    own: Any = getattr(getattr(model, "model", None), "config", None)
    if type(own).__module__.startswith("s3prl_dphubert."):
        from ....model.cost import superb_macs

        found["macs"] = int(sum(superb_macs(own).values()))
    write_text(Path(arguments[0]), json.dumps(found))


def several(arguments: Arguments) -> None:
    """s3prl's run_downstream in as many processes as the first argument says, started by torchrun."""
    from torch.distributed.run import main

    count, *others = arguments
    main(["--standalone", "--nproc_per_node", count, "-m", __spec__.name, "one", *others])


def one(arguments: Arguments) -> None:
    """One of several processes: s3prl takes its number as an argument."""
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
    """Have the system end this process when the one that started it ends, however that ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_DEATH_SIGNAL, signal.SIGKILL)


def main() -> int:
    """Do one job."""
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
