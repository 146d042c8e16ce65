"""Help of commands: examples that parse, completion, and a guess at what was meant."""

from __future__ import annotations

import argparse
import builtins
import shlex
import subprocess
import sys

import pytest

from s3prl_dphubert.cli import build_parser, main
from s3prl_dphubert.cli.help_texts import HELP_TEXTS

FORWARDED = {"run_downstream", "run_pretrain"}  # whose help is s3prl's
EXAMPLES = [(words, line) for words, text in HELP_TEXTS.items() for line, _ in text.examples]


def commands(parser, words=()):
    """Words of every command."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not groups:
        yield " ".join(words), parser
    for group in groups:
        for name, inner in group.choices.items():
            yield from commands(inner, (*words, name))


def test_commands_of_the_texts_exist():
    assert HELP_TEXTS.keys() <= {words for words, _ in commands(build_parser())}
    assert len(HELP_TEXTS) >= 20


@pytest.mark.parametrize(("words", "line"), EXAMPLES)
def test_examples_are_commands_that_parse(words, line):
    assert line.startswith(words)
    arguments = build_parser().parse_args(shlex.split(line.partition(" > ")[0]))
    assert arguments.command == words.split()[0]


def test_every_command_says_what_its_arguments_mean():
    without = [
        f"{words} {action.dest}"
        for words, parser in commands(build_parser())
        if words not in FORWARDED
        for action in parser._actions
        if not action.help
    ]
    assert without == []


def test_help_shows_description_and_examples_in_their_lines(capsys):
    with pytest.raises(SystemExit):
        main(["compress", "--help"])
    printed = capsys.readouterr().out
    assert "Prune a teacher while it is distilled" in printed
    assert "\n  s3prl-dphubert compress dphubert_base --out runs/dphubert\n" in printed


def test_a_slip_is_answered_with_a_guess(capsys):
    with pytest.raises(SystemExit) as end:
        main(["compres"])
    assert end.value.code == 2
    assert (
        "unknown command 'compres', did you mean compress? available: manifest, " in capsys.readouterr().err
    )


def test_bash_completes_commands_options_and_choices(capsys):
    pytest.importorskip("shtab", reason="the extra completion")
    assert main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0
    probe = f"""{script}
COMP_WORDS=(s3prl-dphubert convert --dt); COMP_CWORD=2; COMPREPLY=()
_shtab_s3prl_dphubert; echo "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "-c", probe], capture_output=True, text=True)
    assert done.stdout.split() == ["--dtype"], done.stderr


def test_completion_without_shtab_is_one_line(monkeypatch, capsys):
    real = builtins.__import__

    def refuse(name, *rest):
        if name == "shtab":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    assert main(["completion", "zsh"]) == 2
    assert capsys.readouterr().err == "s3prl-dphubert: completion needs shtab: pip install shtab\n"


TWICE = """
import logging
from s3prl_dphubert import cli

def retry(arguments):
    import huggingface_hub
    logging.getLogger("huggingface_hub.utils._http").warning("Retrying in 1s")

cli.models._teachers = retry
cli.main(["teachers"])
"""


@pytest.mark.slow
def test_messages_of_the_hubs_library_come_once():
    done = subprocess.run([sys.executable, "-c", TWICE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Retrying in 1s") == 1
