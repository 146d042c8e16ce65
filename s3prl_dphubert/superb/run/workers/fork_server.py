"""Waits with s3prl imported and forks a process for each start of it: the import takes up to 11 s.

It is told what to start as lines of JSON, and answers the same way: ``{"id", "pid"}`` when a process has
begun, ``{"id", "code"}`` when it has ended. When whoever started it is gone, it ends what it started.
It is for work on the CPU: what has touched a GPU cannot be forked.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import select
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any, NoReturn, TextIO

from ....errors import DPHubertError, RunError
from . import logs
from .jobs import JOBS, die_with_parent, load

GRACE = 5.0  # seconds from asking a process to end to ending it
TAKEN = 75  # exit code: another process writes the log
Request = dict[str, Any]


def main() -> int:
    """Serve until the input ends; in a forked process, do what was asked for."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what is printed while s3prl is imported is no answer
    try:
        load()
    except Exception as error:  # whatever is wrong with it
        print(json.dumps({"broken": f"{type(error).__name__}: {error}"}), file=answers)
        return 1
    print(json.dumps({"ready": os.getpid()}), file=answers)
    gc.freeze()  # so that forked processes share what is there
    request = _serve(answers)
    if request is not None:
        _leave(_work(request))
    return 0


def _serve(answers: TextIO) -> Request | None:
    """Start what is asked for; returns the request in the process that is to do it."""
    children: dict[int, int] = {}  # pid -> id
    waiting = b""
    while True:
        if select.select([0], [], [], 0.05 if children else None)[0]:
            read = os.read(0, 1 << 16)
            if not read:
                _end_all(list(children))
                return None
            *lines, waiting = (waiting + read).split(b"\n")
            for line in lines:
                request = json.loads(line)
                if "stop" in request:
                    _signal([pid for pid, found in children.items() if found == request["stop"]])
                    continue
                parent = os.getpid()
                pid = os.fork()
                if not pid:
                    answers.close()
                    _settle(parent)
                    return request
                children[pid] = request["id"]
                print(json.dumps({"id": request["id"], "pid": pid}), file=answers)
        for pid, code in _ended(children):
            print(json.dumps({"id": children.pop(pid), "code": code}), file=answers)


def _ended(children: dict[int, int]) -> list[tuple[int, int]]:
    found = [os.waitpid(pid, os.WNOHANG) for pid in children]
    return [(pid, os.waitstatus_to_exitcode(status)) for pid, status in found if pid]


def _settle(parent: int) -> None:
    """Make a forked process one of its own, which ends with the one that forked it."""
    os.setsid()
    die_with_parent()
    if os.getppid() != parent:
        os._exit(1)
    nothing, writes = os.pipe()  # it reads the end of a file, not what is asked for next
    os.dup2(nothing, 0)
    os.close(nothing)
    os.close(writes)


def _signal(pids: list[int], which: int = signal.SIGTERM) -> None:
    for pid in pids:
        try:
            os.killpg(pid, which)
        except ProcessLookupError:  # it has not made its group yet, or has ended
            try:
                os.kill(pid, which)
            except ProcessLookupError:
                continue


def _end_all(pids: list[int]) -> None:
    """End processes and all that they started."""
    _signal(pids)
    until = time.monotonic() + GRACE
    left = dict.fromkeys(pids, 0)
    while left and time.monotonic() < until:
        for pid, _ in _ended(left):
            del left[pid]
        time.sleep(0.02)
    _signal(pids, signal.SIGKILL)


def _work(request: Request) -> int:
    """Do what was asked for, with all that is said in a log."""
    os.environ.update(request["environment"])
    try:
        with logs.own(Path(request["log"])) as log:  # the copies keep the lock
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
    except RunError:
        return TAKEN
    try:
        # Lines appear at once, the last ones of a process that crashes, too.
        sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf8", errors="replace", closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf8", errors="replace", closefd=False)
        os.chdir(request["folder"])
        JOBS[request["job"]](request["arguments"])
    except DPHubertError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except SystemExit as error:
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
        return error.code if isinstance(error.code, int) else 0 if error.code is None else 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _leave(code: int) -> NoReturn:
    """End this process as the interpreter does, but for taking apart what was imported (5 s)."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
