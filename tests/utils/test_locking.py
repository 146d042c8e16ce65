"""Locks hold against other processes and end with the one that holds them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest

from s3prl_dphubert.errors import RunError
from s3prl_dphubert.utils.locking import (
    folder_is_locked,
    folder_lock,
    has_inherited_lock,
    try_inherited_lock,
    waiting_lock,
)


@contextmanager
def other_process(code, path):
    """Run code that prints a line when it holds the lock, and is killed at the end of the block."""
    script = f"import sys, time; from pathlib import Path; path = Path(sys.argv[1])\n{code}"
    process = subprocess.Popen([sys.executable, "-c", script, path], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


HOLDS_FOLDER = """
from s3prl_dphubert.utils.locking import folder_lock
with folder_lock(path):
    print("held", flush=True)
    time.sleep(60)
"""
INHERITS = """
import subprocess
from s3prl_dphubert.utils.locking import try_inherited_lock
with path.open("ab") as file:
    assert try_inherited_lock(file)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], stdout=file)
    print("held", flush=True)
    Path(f"{path}.pid").write_text(str(child.pid))
    time.sleep(60)
"""
WAITS = """
from s3prl_dphubert.utils.locking import waiting_lock
with waiting_lock(path):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_folder_belongs_to_one_process(tmp_path):
    assert not folder_is_locked(tmp_path / "none")
    assert not folder_is_locked(tmp_path)
    with other_process(HOLDS_FOLDER, tmp_path):
        assert folder_is_locked(tmp_path)
        with pytest.raises(RunError, match="another process is running it"), folder_lock(tmp_path):
            pass
    assert not folder_is_locked(tmp_path)
    with folder_lock(tmp_path):
        pass


def test_children_inherit_the_lock_of_a_file(tmp_path):
    path, pid = tmp_path / "x.log", tmp_path / "x.log.pid"
    assert not has_inherited_lock(path)
    assert not path.exists()  # looking leaves nothing behind
    with other_process(INHERITS, path):
        while not (pid.exists() and pid.read_text()):
            time.sleep(0.01)
        with path.open("ab") as file:
            assert not try_inherited_lock(file)
    assert has_inherited_lock(path)  # the parent was killed, the child goes on
    os.kill(int(pid.read_text()), signal.SIGKILL)
    while has_inherited_lock(path):
        time.sleep(0.01)
    with path.open("ab") as file:
        assert try_inherited_lock(file)


def test_processes_and_threads_take_turns(tmp_path):
    path, order = tmp_path / ".lock", []

    def wait():
        with waiting_lock(path):
            order.append("second")

    with other_process(WAITS, path), pytest.raises(TimeoutError), waiting_lock(path, timeout=0.1):
        pass
    with waiting_lock(path, timeout=5):
        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.2)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_public_names_are_imported_without_fcntl_and_a_run_names_the_platform(tmp_path):
    """Windows has no fcntl."""
    script = (
        "import sys; sys.modules['fcntl'] = None\n"
        "import s3prl_dphubert as package\n"
        "for name in package.__all__: getattr(package, name)\n"
        "from pathlib import Path\n"
        "from s3prl_dphubert.utils.locking import folder_lock\n"
        "try:\n"
        f"    with folder_lock(Path({str(tmp_path)!r})): pass\n"
        "except package.DPHubertError as error: print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    expected = f"platform is {sys.platform}, allowed for runs: Linux, macOS (fcntl is missing)\n"
    assert run.stdout == expected, run.stderr
