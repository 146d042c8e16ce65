"""A process that imports s3prl once, which takes up to 11 s, and forks a process for each job.

It reads jobs as lines of JSON on standard input and answers ``{"id", "code"}`` when one has ended, or
``{"broken"}`` when s3prl cannot be imported. When its input ends, it ends its jobs and itself. It is for work
on the CPU only: a process that has used a GPU cannot be forked.
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

GRACE = 5.0  # seconds from the request to end to the kill
LOG_BUSY = 75  # exit code: another process writes the log
_POLL = 0.05  # seconds between looks at the children
Request = dict[str, Any]


def main() -> int:
    """Serve until the input ends; in a forked process, do the job."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # keeps what s3prl prints while it is imported out of the answers
    try:
        load()
    except Exception as error:  # importing s3prl may fail in any way
        print(json.dumps({"broken": f"{type(error).__name__}: {error}"}), file=answers)
        return 1
    gc.freeze()  # so that forked processes share the memory of all modules
    request = _serve(answers)
    if request is not None:
        _exit(_do(request))
    return 0


def _serve(answers: TextIO) -> Request | None:
    """Fork a process for each request, and return the request in it."""
    children: dict[int, int] = {}  # pid -> id of the request
    rest = b""
    while True:
        if select.select([0], [], [], _POLL if children else None)[0]:
            received = os.read(0, 1 << 16)
            if not received:
                _end_all(list(children))
                return None
            *lines, rest = (rest + received).split(b"\n")
            for line in lines:
                request = json.loads(line)
                parent = os.getpid()
                pid = os.fork()
                if not pid:
                    answers.close()
                    _detach(parent)
                    return request
                children[pid] = request["id"]
        for pid, code in _reap(list(children)):
            print(json.dumps({"id": children.pop(pid), "code": code}), file=answers)


def _reap(pids: list[int]) -> list[tuple[int, int]]:
    """Return pid and exit code of the children that have ended."""
    ended = [os.waitpid(pid, os.WNOHANG) for pid in pids]
    return [(pid, os.waitstatus_to_exitcode(status)) for pid, status in ended if pid]


def _detach(parent: int) -> None:
    """Give a forked process a session and an empty input of its own; it still ends with its parent."""
    os.setsid()
    die_with_parent()
    if os.getppid() != parent:
        os._exit(1)
    empty, writer = os.pipe()
    os.dup2(empty, 0)
    os.close(empty)
    os.close(writer)


def _signal(pids: list[int], number: int) -> None:
    """Send a signal to processes and all that they started."""
    for pid in pids:
        try:
            os.killpg(pid, number)
        except ProcessLookupError:  # it has not made its group yet, or has ended
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue


def _end_all(pids: list[int]) -> None:
    _signal(pids, signal.SIGTERM)
    until = time.monotonic() + GRACE
    running = set(pids)
    while running and time.monotonic() < until:
        running -= {pid for pid, _ in _reap(list(running))}
        time.sleep(0.02)
    _signal(pids, signal.SIGKILL)


def _do(request: Request) -> int:
    """Do a job with its output in its log, and return the exit code."""
    os.environ.update(request["environment"])
    try:
        with logs.own(Path(request["log"])) as log:  # the copies keep the lock
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
    except RunError:
        return LOG_BUSY
    try:
        # Line buffering, so that the last lines of a process that crashes are in the log, too.
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


def _exit(code: int) -> NoReturn:
    """End this process as the interpreter does, but without unloading its modules, which takes 5 s."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
