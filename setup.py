"""Build steps beyond those of setuptools, and the description for the package index.

A wheel also carries the configurations and recipes, which lie at the checkout's root, and a ``.pth``
file beside the package that lets the plugin in when s3prl is imported. An editable install has the
``.pth`` file too: what its build writes to ``install_lib`` goes into site-packages as it is.
"""

import re
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


def description() -> str:
    """Return the README with links that work outside the repository."""
    text = (ROOT / "README.md").read_text(encoding="utf8")
    (home,) = set(re.findall(r"https://github\.com/[\w-]+/s3prl-dphubert\b", text))
    text = re.sub(r"\]\((?!https?:|#)([^)]+)\)", rf"]({home}/blob/main/\1)", text)
    return re.sub(r'(src|srcset)="(?!https?:)', rf'\1="{home}/raw/main/', text)


setup(
    cmdclass={"build_py": BuildWithShippedFiles},
    long_description=description(),
    long_description_content_type="text/markdown",
)
