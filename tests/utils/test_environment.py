"""Versions of what is installed, of s3prl whichever distribution it is from."""

from __future__ import annotations

import pytest

from s3prl_dphubert.utils.environment import package_version, s3prl_version
from tests.helpers.s3prl_runs import python

SHOW = "from s3prl_dphubert.utils.environment import s3prl_version; print(s3prl_version())"


def test_versions_of_packages():
    assert package_version("numpy")
    assert package_version("no-such-package") == ""
    assert s3prl_version() == package_version("s3prl") == "0.4.18"


@pytest.mark.parametrize(
    ("distribution", "shown"),
    [
        ("espnet_s3prl", "2026.5.14 (espnet-s3prl)"),
        ("", "9.9 (a checkout)"),
    ],
)
def test_s3prl_of_another_origin_is_named(distribution, shown, tmp_path):
    """A fork on the package index installs the same module, and a checkout on PYTHONPATH shadows both."""
    (tmp_path / "s3prl").mkdir()
    (tmp_path / "s3prl" / "__init__.py").touch()
    (tmp_path / "s3prl" / "version.txt").write_text("9.9\n")
    if distribution:
        info = tmp_path / f"{distribution}-2026.5.14.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: espnet-s3prl\nVersion: 2026.5.14\n")
    assert python("-c", SHOW, cwd=tmp_path, PYTHONPATH=str(tmp_path)).ok().out.strip() == shown
