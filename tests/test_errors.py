"""Messages are one printable line, however the values in them look."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from s3prl_dphubert.cli import main
from s3prl_dphubert.errors import ConfigError, DPHubertError, RunError, printable, shown


def nested(times):
    value = ("x",)
    for _ in range(times):
        value = (value, value)
    return value


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        3,
        2.5,
        "a'b",
        b"ab",
        [],
        (),
        {},
        set(),
        {1},
        (1,),
        [1, (2, "x")],
        {"a": [None], 2: {"b": ()}},
    ],
)
def test_short_values_are_shown_as_they_are(value):
    assert shown(value) == repr(value)


@pytest.mark.parametrize(
    "value",
    ["x" * 10**6, list(range(10**6)), nested(60), [[]] * 10**6, {i: i for i in range(1000)}, 10**5000],
    ids=range(6),
)
def test_large_values_are_cut(value):
    assert len(shown(value)) <= 80


def test_values_that_hold_themselves_and_arrays_are_cut():
    value = []
    value.append(value)
    assert len(shown(value)) == 80
    assert shown(torch.zeros(()).expand(2**20, 2**20)) == "an array of shape (1048576, 1048576)"
    assert shown(np.zeros((2, 3))) == "an array of shape (2, 3)"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain ü 漢 …", "plain ü 漢 …"),
        ("\x1b[2J", "\\x1b[2J"),
        ("a\n  b\r\nc\n", "a b c"),
        ("a\tb\0", "a\\tb\\x00"),
        ("\u202eabc\u2028d", "\\u202eabc\\u2028d"),
        ("\udcff", "\\udcff"),
    ],
)
def test_what_a_terminal_would_act_on_is_escaped(text, expected):
    assert printable(text) == expected
    assert str(DPHubertError(text)) == expected
    expected.encode()


def test_long_messages_lose_their_middle_and_long_lists_their_end():
    error = DPHubertError("a" * 10**6 + "end")
    assert len(str(error)) < 4000
    assert str(error).endswith("end")
    with pytest.raises(ConfigError, match=r"x: fault 0; .*fault 29; and 70 more$") as caught:
        ConfigError.raise_for("x", (f"fault {i}" for i in range(100)))
    assert len(caught.value.faults) == 100


def test_details_are_lines_of_their_own_and_survive_pickling():
    error = pickle.loads(pickle.dumps(RunError("failed:", detail="line 1\nline\x1b 2")))
    assert str(error) == "failed:\nline 1\nline\\x1b 2"


def test_the_command_line_prints_one_line(tmp_path, capsys):
    assert main(["inspect", str(tmp_path / "a\nb\x1b[2J")]) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert printed.rstrip("\n").isprintable()
