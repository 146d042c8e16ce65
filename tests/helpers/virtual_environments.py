"""Fresh Python environments that see the packages of this one, but not this project."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Environment:
    """A virtual environment.

    Args:
        folder: where it is.
    """

    folder: Path

    @property
    def python(self) -> str:
        """Its interpreter."""
        return str(self.folder / "bin" / "python")

    @property
    def site(self) -> Path:
        """Its site-packages."""
        (site_packages,) = self.folder.glob("lib/python*/site-packages")
        return site_packages

    def pip(self, *arguments: str) -> None:
        """Install or uninstall, without the network."""
        pip = [sys.executable, "-m", "pip", "--python", self.python]
        run = subprocess.run([*pip, *arguments], capture_output=True, text=True, cwd=self.folder)
        assert run.returncode == 0, run.stdout + run.stderr

    def install(self, *arguments: str) -> None:
        """Install something without what it needs."""
        alone = ("--no-deps", "--no-index", "--no-build-isolation", "--ignore-installed")
        self.pip("install", *alone, *arguments)

    def link(self) -> None:
        """Let it see the packages of this environment.

        Path files of the folder that it then looks into are not read, so that what is installed there
        in editable mode, this project above all, is not installed here.
        """
        (self.site / "zz_other_packages.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run its interpreter in its folder."""
        own = {"HOME": str(self.folder), "OMP_NUM_THREADS": "1", **environment}
        return subprocess.run(
            [self.python, *arguments],
            capture_output=True,
            text=True,
            cwd=self.folder,
            env={**os.environ, **own},
        )

    def answer(self, script: str, **environment: str):
        """Return the last line that a script prints, read as JSON."""
        done = self.run("-c", script, **environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout.splitlines()[-1])


def fresh(folder: Path) -> Environment:
    """Make an empty environment."""
    venv.create(folder, symlinks=True, with_pip=False)
    return Environment(folder)
