"""Devices that tests run on: the CPU, and a GPU where torch sees one."""

from __future__ import annotations

import pytest

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]
