"""Build steps beyond those of setuptools.

A wheel also carries the configurations and recipes, which lie at the checkout's root, and a ``.pth``
file beside the package that lets the plugin in when s3prl is imported. An editable install has the
``.pth`` file too: what its build writes to ``install_lib`` goes into site-packages as it is.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
SHIPPED = ("upstream_configs", "downstream_recipes")
PTH = "s3prl_dphubert.pth"


class BuildWithShippedFiles(build_py):
    def run(self):
        super().run()
        place = Path(
            self.get_finalized_command("install").install_lib if self.editable_mode else self.build_lib
        )
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / PTH, place / PTH)
        if self.editable_mode:
            return
        for name in SHIPPED:
            target = Path(self.build_lib, "s3prl_dphubert", "_shipped", name)
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(ROOT / name, target)


setup(cmdclass={"build_py": BuildWithShippedFiles})
