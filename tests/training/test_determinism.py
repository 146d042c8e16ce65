"""Deterministic kernels are a setting of torch that leaves no trace, and their absence is said."""

from __future__ import annotations

import os

import pytest
import torch

from s3prl_dphubert.errors import RunError
from s3prl_dphubert.training import determinism
from s3prl_dphubert.training.determinism import deterministic_kernels, say_repeatable


@pytest.fixture(autouse=True)
def no_workspace(monkeypatch):
    monkeypatch.setenv(determinism.WORKSPACE, "")  # so that what is set here is taken back


def test_they_are_on_within_and_as_before_after():
    for wanted in (False, True):
        with deterministic_kernels(wanted):
            assert torch.are_deterministic_algorithms_enabled() is wanted
            assert (os.environ[determinism.WORKSPACE] == ":4096:8") is wanted
        assert not torch.are_deterministic_algorithms_enabled()
        assert torch.utils.deterministic.fill_uninitialized_memory


def test_a_gpu_that_has_started_without_the_setting_of_cublas_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    with (
        pytest.raises(RunError, match="CUDA has started with CUBLAS_WORKSPACE_CONFIG"),
        deterministic_kernels(True),
    ):
        pass
    monkeypatch.setenv(determinism.WORKSPACE, ":16:8")
    with deterministic_kernels(True):
        assert os.environ[determinism.WORKSPACE] == ":16:8"


def test_a_gpu_says_in_one_line_that_it_is_not(caplog):
    say_repeatable(torch.device("cpu"))
    with deterministic_kernels(True):
        say_repeatable(torch.device("cuda"))
    assert caplog.messages == []
    say_repeatable(torch.device("cuda"))
    (message,) = caplog.messages
    assert "`deterministic: true` prevents that" in message
