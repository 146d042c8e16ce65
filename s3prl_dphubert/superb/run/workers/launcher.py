"""Start processes of s3prl and wait for them."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ....errors import RunError
from . import logs
from .fork_server import GRACE, LOG_BUSY

EVERY = 0.5  # seconds between calls of a watch
Watch = Callable[[], None]
"""Function that is called while a job runs."""
_GONE = "the process that starts s3prl has ended"


class StoppedError(RunError):
    """The run was interrupted."""


class Launcher:
    """Starts jobs, each in a process of its own that has imported s3prl already.

    Several threads may use it at once. Leaving its context ends all processes.

    Args:
        environment: variables for all processes.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        # In days of training, the lines of progress bars would fill the disk. Workers that are spawned
        # register the upstreams by the plugin. Scores must not depend on what is fast on a machine.
        defaults = {
            "TQDM_MININTERVAL": "5",
            "S3PRL_DPHUBERT_PLUGIN": "1",
            "S3PRL_DPHUBERT_PRECISION": "fp32",  # unless the options of an upstream name another
        }
        self._environment = {**os.environ, **defaults, **(environment or {})}
        self._lock = threading.Lock()
        self._server: subprocess.Popen[bytes] | None = None
        self._answers: dict[int, queue.Queue[int | str]] = {}
        self._programs: set[subprocess.Popen[bytes]] = set()
        self._count = 0
        self._broken = ""
        self._stopped = False

    @property
    def stopped(self) -> bool:
        """Return whether the launcher was closed."""
        return self._stopped

    def __enter__(self) -> Launcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(
        self,
        job: str,
        arguments: Sequence[str],
        log: Path,
        folder: Path,
        environment: Mapping[str, str] | None = None,
        watch: Watch = lambda: None,
    ) -> str:
        """Do a job and wait for its end.

        Args:
            job: a name in ``jobs.JOBS``.
            arguments: of the job.
            log: for its output.
            folder: working directory.
            environment: variables for this process only.
            watch: called about twice a second while it runs.

        Returns:
            Its output.

        Raises:
            RunError: it ended with an error (the message has the last lines of the log), or the log is
                in use by a process whose parent was killed.
            StoppedError: the launcher was closed.
        """
        answer = self._request(
            job=job,
            arguments=list(arguments),
            log=str(log),
            folder=str(folder),
            environment=dict(environment or {}),
        )
        while True:
            try:
                code = answer.get(timeout=EVERY)
                break
            except queue.Empty:
                watch()
        if self._stopped:
            raise StoppedError("interrupted")
        if isinstance(code, str):
            raise RunError(code)
        return _output(code, log)

    def program(
        self,
        command: Sequence[str],
        log: Path,
        folder: Path,
        environment: Mapping[str, str] | None = None,
        watch: Watch = lambda: None,
    ) -> str:
        """Run a program instead of a job; the rest as for :meth:`run`."""
        with logs.own(log) as file, self._lock:
            if self._stopped:
                raise StoppedError("interrupted")
            process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env={**self._environment, **(environment or {})},
                start_new_session=True,
            )
            self._programs.add(process)
        try:
            while True:
                try:
                    code = process.wait(timeout=EVERY)
                    break
                except subprocess.TimeoutExpired:
                    watch()
        finally:
            _end(process)
            self._programs.discard(process)
        if self._stopped:
            raise StoppedError("interrupted")
        return _output(code, log)

    def close(self) -> None:
        """End all processes."""
        with self._lock:
            self._stopped = True
            server = self._server
        for process in list(self._programs):
            _end(process)
        if server is not None and server.stdin is not None:
            server.stdin.close()
            try:
                server.wait(timeout=2 * GRACE)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()

    def _request(self, **request: Any) -> queue.Queue[int | str]:
        """Send a request to the fork server; return a queue for the exit code or an error message."""
        with self._lock:
            if self._stopped:
                raise StoppedError("interrupted")
            server = self._server or self._start_server()
            self._count += 1
            answer = self._answers[self._count] = queue.Queue()
            try:
                server.stdin.write((json.dumps({"id": self._count, **request}) + "\n").encode())  # type: ignore
                server.stdin.flush()  # type: ignore[union-attr]
            except (OSError, ValueError):
                answer.put(self._broken or _GONE)
            return answer

    def _start_server(self) -> subprocess.Popen[bytes]:
        """Start the fork server in a session of its own, so that Ctrl-C reaches this process alone."""
        self._server = subprocess.Popen(
            [sys.executable, "-m", "s3prl_dphubert.superb.run.workers.fork_server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=self._environment,
            start_new_session=True,
        )
        threading.Thread(target=self._listen, args=(self._server,), daemon=True).start()
        return self._server

    def _listen(self, server: subprocess.Popen[bytes]) -> None:
        for line in server.stdout:  # type: ignore[union-attr]
            message = json.loads(line)
            if "broken" in message:
                self._broken = f"s3prl cannot be imported: {message['broken']}; see s3prl-dphubert doctor"
            else:
                self._answers[message["id"]].put(message["code"])
        for answer in self._answers.values():  # of the threads that still wait
            answer.put(self._broken or _GONE)


def _output(code: int, log: Path) -> str:
    """Return the output of a process that has ended, or raise if that was with an error."""
    if code == LOG_BUSY:
        raise RunError(f"{log}: {logs.BUSY}")
    text = logs.text(log)
    if code:
        how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
        raise RunError(f"s3prl {how}; the last lines of {log}:", detail=logs.tail(text))
    return text


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a program and all that it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            try:
                os.killpg(process.pid, number)
                process.wait(timeout=GRACE)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue
