"""The release script: what it builds and installs, the changelog, and what is still to do."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from s3prl_dphubert import __version__
from tests.helpers.golden import ROOT

SCRIPT = ROOT / ".ci" / "release.py"


@pytest.fixture(scope="module")
def release():
    spec = importlib.util.spec_from_file_location("release", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_changelog_gets_a_heading(release, tmp_path):
    page = tmp_path / "CHANGELOG.md"
    page.write_text(
        "# Changelog\n\n## [Unreleased]\n\nThe first release will be 0.1.0.\n\n### Added\n\n- A.\n"
    )
    release.write_heading(page, "0.1.0", "2026-12-01")
    assert page.read_text() == (
        "# Changelog\n\n## [Unreleased]\n\n## [0.1.0] - 2026-12-01\n\n### Added\n\n- A.\n"
    )
    for version, message in (("0.1.0", "has a section"), ("next", "allowed: such as")):
        with pytest.raises(SystemExit, match=message):
            release.write_heading(page, version, "2026-12-02")


def test_the_changelog_of_the_checkout_can_get_one(release, tmp_path):
    page = Path(shutil.copy(ROOT / "CHANGELOG.md", tmp_path))
    release.write_heading(page, "9.9.9", "2026-12-01")
    assert "## [Unreleased]\n\n## [9.9.9] - 2026-12-01\n" in page.read_text()


def test_what_is_to_do_is_listed(release, tmp_path):
    for name in ("README.md", "setup.cfg", "CITATION.cff", "SECURITY.md", "CHANGELOG.md"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "s3prl_dphubert").mkdir()
    (tmp_path / "s3prl_dphubert" / "version.py").write_text('__version__ = "3.0.0"\n')
    listed = list(release.to_do(tmp_path))
    assert len(listed) == 4
    assert listed[0].startswith("CITATION.cff has another version than 3.0.0")
    assert "python .ci/release.py changelog 3.0.0" in listed[1]


def test_supported_versions_are_those_of_the_metadata(release):
    setup = (ROOT / "setup.cfg").read_text()
    versions = release.supported(setup)
    assert versions[0] == "3.10" and "python_requires = >=3.10" in setup
    assert f"{sys.version_info.major}.{sys.version_info.minor}" in versions


def test_a_file_that_does_not_work_stops_the_check(release, tmp_path, monkeypatch):
    monkeypatch.setattr(release, "OUT", tmp_path)
    (tmp_path / "broken.whl").write_text("no wheel")
    with pytest.raises(SystemExit, match="failed with 1"):
        release.try_out(Path(sys.executable), tmp_path / "broken.whl", full=False)


@pytest.mark.slow
def test_wheel_and_source_distribution_install_in_empty_environments(release, tmp_path, monkeypatch, wheel):
    monkeypatch.setattr(release, "OUT", tmp_path)
    release.try_out(Path(sys.executable), wheel, full=False)
    printed = release.run(sys.executable, "-m", "twine", "check", "--strict", str(wheel))
    assert "PASSED" in printed


def test_the_citation_is_of_this_version_and_of_the_paper():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf8"))
    assert {"cff-version", "message", "title", "authors"} <= cited.keys()  # required by the format
    assert cited["version"] == __version__
    paper = cited["preferred-citation"]
    assert {"type", "title", "authors"} <= paper.keys()
    readme = (ROOT / "README.md").read_text(encoding="utf8")
    assert paper["title"] in readme.replace("{", "").replace("}", "")
    assert all(author["family-names"] in readme for author in paper["authors"])


@pytest.mark.slow
def test_links_of_the_description_work_on_the_package_index(wheel, tmp_path):
    import re
    import zipfile

    with zipfile.ZipFile(wheel) as files:
        metadata = files.read(next(n for n in files.namelist() if n.endswith("METADATA"))).decode()
    targets = re.findall(r"\]\(([^)]+)\)", metadata) + re.findall(r'(?:src|srcset)="([^"]+)"', metadata)
    assert len(targets) > 20
    assert [target for target in targets if not target.startswith(("https://", "#"))] == []
    for field in (
        "Author: ",
        "Keywords: ",
        "Project-URL: Issues, ",
        "Classifier: Programming Language :: Python :: 3.13",
    ):
        assert f"\n{field}" in metadata


def test_the_help_says_what_it_does():
    done = subprocess.run([sys.executable, str(SCRIPT), "check", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "--final" in done.stdout
