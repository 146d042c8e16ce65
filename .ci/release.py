"""Check a release, and write its heading into the changelog.

``python .ci/release.py check`` builds the source distribution and the wheel, has twine check them, and
installs each into an empty environment of the oldest and the newest supported Python that this machine has.
``changelog VERSION`` turns what is unreleased into the section of a version. Nothing is uploaded, committed
or tagged.
"""

from __future__ import annotations

import argparse
import datetime
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "build" / "release"
PLACEHOLDER = "github.com/OWNER/"
UNRELEASED = "## [Unreleased]\n"
PURE = ("s3prl",)  # packages of Python alone that come without a wheel
TRY = """
import compileall, pathlib, sys
import s3prl_dphubert
from s3prl_dphubert.cli import build_parser
from s3prl_dphubert.utils import resources
home = pathlib.Path(s3prl_dphubert.__file__).parent
assert compileall.compile_dir(home, quiet=1), "a file is no Python of this version"
for name in ("upstream_configs/dphubert_base.yaml", "downstream_recipes/pr/config.yaml", "assets/speech"):
    resources.find(name)
assert "compress" in build_parser().format_help()
print(s3prl_dphubert.__version__)
"""
"""What has to work without any requirement: the files that ship, the syntax, the command line."""

LOAD = """
import torch
from s3prl_dphubert import load_model
model = load_model("hubert_mini")
with torch.no_grad():
    hidden, frames = model.extract_features(torch.zeros(1, 16000))
assert len(hidden) == model.config.num_layers + 1
assert {state.shape for state in hidden} == {(1, 49, model.config.embed_dim)}
"""


def main(argv: list[str] | None = None) -> int:
    """Run one command."""
    parser = argparse.ArgumentParser(prog="python .ci/release.py", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="build, check and install")
    check.add_argument(
        "--full", action="store_true", help="install all requirements too, several GB, and load a model"
    )
    check.add_argument("--final", action="store_true", help="fail on what is still to do before an upload")
    check.add_argument(
        "--python",
        action="append",
        type=Path,
        default=[],
        help="interpreter to install with, in place of those found in PATH",
    )
    changelog = commands.add_parser("changelog", help="write the heading of a version")
    changelog.add_argument("version")
    arguments = parser.parse_args(argv)
    if arguments.command == "changelog":
        write_heading(ROOT / "CHANGELOG.md", arguments.version, datetime.date.today().isoformat())
        return 0
    return run_checks(arguments.python or interpreters(), arguments.full, arguments.final)


def run_checks(pythons: list[Path], full: bool, final: bool) -> int:
    """Build, check and install; returns the exit code."""
    files = build(OUT)
    run(sys.executable, "-m", "twine", "check", "--strict", *map(str, files))
    for python in pythons:
        for file in files:
            try_out(python, file, full)
        print(f"{python.name}: {resolution(python, next(file for file in files if file.suffix == '.whl'))}")
    print(audit())
    left = list(to_do(ROOT))
    print("\n".join(["still to do:", *(f"- {each}" for each in left)]) if left else "ready")
    return int(final and bool(left))


def run(*words: str, **options: object) -> str:
    """Run a command and return what it prints; a failure ends this program."""
    print(f"$ {' '.join(words)[:160]}", flush=True)
    done = subprocess.run(words, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)  # type: ignore
    if done.returncode:
        sys.exit(f"{done.stdout[-4000:]}\n{words[0]} failed with {done.returncode}")
    return done.stdout


def build(out: Path) -> list[Path]:
    """Build the source distribution, and the wheel from it."""
    shutil.rmtree(out, ignore_errors=True)
    run(sys.executable, "-m", "build", "--outdir", str(out), str(ROOT))
    return sorted(out.glob("s3prl_dphubert-*"))


def supported(setup: str) -> list[str]:
    """Return the versions of Python that the metadata name, the oldest first."""
    return re.findall(r"Programming Language :: Python :: (3\.\d+)$", setup, re.MULTILINE)


def interpreters() -> list[Path]:
    """Return the interpreters of the oldest and the newest supported Python that are here."""
    found = []
    for version in supported((ROOT / "setup.cfg").read_text(encoding="utf8")):
        path = shutil.which(f"python{version}")
        works = path and not subprocess.run([path, "-c", ""], capture_output=True).returncode
        if works:  # shims of version managers exist for versions that are not chosen
            found.append(Path(str(path)))
    if not found:
        sys.exit("no supported Python is here")
    return list(dict.fromkeys((found[0], found[-1])))


def try_out(python: Path, file: Path, full: bool) -> None:
    """Install a file into an empty environment, and use it there."""
    home = OUT / f"{python.name}-{file.suffix.lstrip('.')}"
    run(str(python), "-m", "venv", str(home))
    own = str(home / "bin" / "python")
    run(own, "-m", "pip", "install", "--quiet", *([] if full else ["--no-deps"]), str(file))
    run(own, "-c", TRY, cwd=home)
    run(str(home / "bin" / "s3prl-dphubert"), "--version", cwd=home)
    if full:
        run(own, "-c", LOAD, cwd=home)


def resolution(python: Path, wheel: Path) -> str:
    """Say whether everything that the extra ``s3prl`` needs can be installed without a compiler."""
    words = ["-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--only-binary", ":all:"]
    words += [f"--no-binary={name}" for name in PURE]
    done = subprocess.run([str(python), *words, f"{wheel}[s3prl]"], capture_output=True, text=True)
    if not done.returncode:
        return "the extra s3prl installs without a compiler"
    last = [line for line in done.stderr.splitlines() if line.startswith("ERROR")][-1:]
    return f"the extra s3prl does not resolve to wheels: {''.join(last)}"


def audit() -> str:
    """Look the requirements up among known weaknesses, where that is possible."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pip_audit", "--progress-spinner=off"],
            capture_output=True,
            text=True,
            timeout=300,
        )
    except subprocess.TimeoutExpired:
        return "pip-audit: its database cannot be reached; run it where it can"
    if "No module named" in done.stderr:
        return "pip-audit: not installed; pip install pip-audit, and run it where its database can be reached"
    return f"pip-audit: {done.stdout.strip() or done.stderr.strip().splitlines()[-1]}"


def to_do(root: Path) -> Iterator[str]:
    """Yield what keeps the checkout from being released as it is."""
    version = re.search(r'__version__ = "(.+)"', (root / "s3prl_dphubert" / "version.py").read_text())[1]  # type: ignore
    cited = re.search(r"^version: (.+)$", (root / "CITATION.cff").read_text(), re.MULTILINE)
    if cited is None or cited[1] != version:
        yield f"CITATION.cff has another version than {version}"
    if f"## [{version}]" not in (root / "CHANGELOG.md").read_text(encoding="utf8"):
        yield f"CHANGELOG.md has no heading of {version}: python .ci/release.py changelog {version}"
    owned = [
        name
        for name in ("README.md", "setup.cfg", "CITATION.cff", "SECURITY.md")
        if PLACEHOLDER in (root / name).read_text()
    ]
    if owned:
        yield f"OWNER stands for the owner of the repository in {', '.join(owned)}"
    status = subprocess.run(["git", "status", "--porcelain"], cwd=root, capture_output=True, text=True)
    if status.returncode or status.stdout:
        yield "the checkout has changes that are not committed, or is none"


def write_heading(page: Path, version: str, date: str) -> None:
    """Turn what is unreleased into the section of a version, below a new empty one.

    Args:
        page: the changelog.
        version: such as 0.1.0.
        date: of the release, YYYY-MM-DD.
    """
    text = page.read_text(encoding="utf8")
    if not re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", version):
        sys.exit(f"version is {version!r}, allowed: such as 0.1.0 or 1.0.0rc1")
    if f"## [{version}]" in text:
        sys.exit(f"{page}: has a section of {version} already")
    if text.count(UNRELEASED) != 1:
        sys.exit(f"{page}: has no heading {UNRELEASED.strip()!r}")
    text = text.replace(f"\nThe first release will be {version}.\n", "")
    page.write_text(text.replace(UNRELEASED, f"{UNRELEASED}\n## [{version}] - {date}\n"), encoding="utf8")


if __name__ == "__main__":
    sys.exit(main())
