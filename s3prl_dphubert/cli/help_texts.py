"""Descriptions and examples that ``--help`` shows below the usage of a command."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NamedTuple


class HelpText(NamedTuple):
    """Description of a command, and examples: command lines with their purposes."""

    description: str
    examples: Sequence[tuple[str, str]]


HELP_TEXTS = {
    "manifest": HelpText(
        "Find audio and list its files with their lengths in a tab-separated file, which compress "
        "and validate read. Only headers are read, unless --check is given. What cannot be used "
        "goes to OUT.skipped.tsv with the reason.",
        (
            (
                "manifest LibriSpeech --out ls.tsv --split 'valid=dev-*'",
                "two manifests, by the names of folders",
            ),
            ("manifest 's3://bucket/train-*.tar' --out train.tsv", "tar shards in object storage"),
        ),
    ),
    "validate": HelpText(
        "Decode everything that a manifest lists, as training would, and report what is damaged, "
        "clipped or shorter than its header says. Exit code 2 if anything is.",
        (("validate ls.tsv --workers 8", ""),),
    ),
    "compress": HelpText(
        "Prune a teacher while it is distilled (stage 1), cut the closed units out, and distil "
        "the small model once more (stage 2). OUT/model is the result. A run that was interrupted "
        "goes on with the same command; torchrun starts it in several processes.",
        (
            ("compress dphubert_base --out runs/dphubert", "the published recipe on LibriSpeech"),
            (
                "compress run.yaml --out runs/a --set budget.sparsity=0.9",
                "a configuration of yours, one value changed",
            ),
        ),
    ),
    "report": HelpText(
        "Write one self-contained HTML page about runs of compress: what each layer kept, curves, cost, "
        "speed, scores and layer weights beside teacher and baselines, environment and commands. What a run "
        "has not left is named there.",
        (
            ("report runs/dphubert --measure", ""),
            ("report runs/a runs/b --scores runs/superb/* --out comparison.html", "side by side"),
        ),
    ),
    "demo": HelpText(
        "Show the whole of it on the speech and the teacher that ship: about a quarter of an hour "
        "on two cores.",
        (("demo --out demo-output", ""),),
    ),
    "teachers": HelpText(
        "List names, sizes, licences and origins of the built-in models.",
        (("teachers", ""),),
    ),
    "inspect": HelpText(
        "Show what a model of any source costs, and which units of each layer it has.",
        (
            ("inspect runs/dphubert/model", ""),
            ("inspect hubert_base", "from the Hub"),
        ),
    ),
    "profile": HelpText(
        "Count parameters and MACs of models, and time them in turns on this machine.",
        (
            ("profile hubert_base runs/dphubert/model", "side by side"),
            ("profile hubert_mini --layers", "layer by layer"),
        ),
    ),
    "bench": HelpText(
        "Time inference of models of several libraries in turns, or updates of training, and "
        "write tables and plots.",
        (
            ("bench --out speed --quick", ""),
            ("bench --table cpu.json --model wavlm_base_plus", "costs of units, for budgets in seconds"),
            ("bench --device cuda --out gpu", "inference and training on a GPU"),
        ),
    ),
    "convert": HelpText(
        "Write a model of any source as a checkpoint directory, or as a .pth of the published code.",
        (
            ("convert hubert_base models/hubert", ""),
            ("convert runs/dphubert/model small.pth", "for the published code"),
            ("convert runs/student/model native --format transformers", "a dense model for HubertModel"),
        ),
    ),
    "card": HelpText(
        "State licence, origin and scores in the model card of a checkpoint directory; its other text stays.",
        (
            ("card runs/first/model --license apache-2.0 --base-model facebook/hubert-base-ls960", ""),
            ("card runs/first/model --scores runs/superb", "as the Hub's model-index"),
        ),
    ),
    "export-hub": HelpText(
        "Write a folder that s3prl and the SUPERB challenge load from the Hub without this package.",
        (("export-hub runs/dphubert/model my-model", ""),),
    ),
    "export": HelpText(
        "Write a model for ONNX Runtime or OpenVINO. A report beside it compares hidden states "
        "and times with those of the model.",
        (
            ("export runs/dphubert/model small.xml --precision int8", "OpenVINO, 8 bits"),
            ("export runs/dphubert/model small.onnx --format onnx", ""),
        ),
    ),
    "doctor": HelpText(
        "Report versions, repairs of s3prl, and which SUPERB tasks are ready. Exit code 1 if "
        "s3prl cannot be used.",
        (("doctor", ""),),
    ),
    "link": HelpText(
        "Put pretrain/dphubert and upstream/dphubert into a checkout of s3prl, for those who work in one.",
        (
            ("link ~/s3prl", ""),
            ("link ~/s3prl --undo", ""),
        ),
    ),
    "superb run": HelpText(
        "Prepare, train and evaluate SUPERB tasks on an upstream with s3prl's own code. Finished "
        "work is kept: the same command goes on where it was.",
        (
            (
                "superb run --upstream dphubert --data DATA --out runs/superb --check",
                "only say what is missing",
            ),
            (
                "superb run --upstream dphubert_local --ckpt runs/a/model --tasks ks,sid --data DATA --out a",
                "",
            ),
        ),
    ),
    "superb status": HelpText(
        "Show how far each task of a run is.",
        (("superb status runs/superb", ""),),
    ),
    "superb score": HelpText(
        "Compute points and the SUPERB score of results.",
        (("superb score ks=96.36 ic=97.92 sf=85.1/28.3", ""),),
    ),
    "superb report": HelpText(
        "Compare finished tasks in a table and a plot, beside published results.",
        (("superb report runs/superb --out report", ""),),
    ),
    "superb submit": HelpText(
        "Pack and check predict.zip for the leaderboard.",
        (("superb submit runs/superb --checkpoint runs/a/model --out predict.zip", ""),),
    ),
    "superb check": HelpText(
        "Check a predict.zip of any source: names, sizes, items and values.",
        (("superb check predict.zip --data DATA", "also compare with the corpora's own lists"),),
    ),
    "probe": HelpText(
        "Classify words, phones and speakers, and verify speakers, by linear heads on the hidden "
        "states of models: closed form or L-BFGS, no seed. OUT holds a record of each model, a table "
        "and plots. A run that was interrupted goes on with the same command.",
        (
            (
                "probe runs/a/model runs/b/model --corpus free-superb --out probes",
                "two models and the floors, on a build of free-superb",
            ),
            (
                "probe --compare probes/a.probe.json probes/b.probe.json",
                "paired differences, from records alone",
            ),
            (
                "probe --order random.probe.json early.probe.json late.probe.json",
                "whether each probe ranks them as it must",
            ),
        ),
    ),
    "free-superb": HelpText(
        "Build FreeSUPERB, a small benchmark of free recorded speech, from Debian packages.",
        (("free-superb --out free-superb", "all tasks"),),
    ),
    "completion": HelpText(
        "Print a script that completes commands, options and files in a shell. It needs shtab.",
        (
            ("completion bash > ~/.local/share/bash-completion/completions/s3prl-dphubert", ""),
            ("completion zsh > ~/.zfunc/_s3prl-dphubert", "with ~/.zfunc in fpath"),
        ),
    ),
}
"""Words of a command -> its text; commands without one show their one line."""


def add_help_texts(parser: argparse.ArgumentParser, words: Sequence[str] = ()) -> None:
    """Give the commands of a parser their descriptions and examples."""
    text = HELP_TEXTS.get(" ".join(words))
    if text is not None:
        parser.description = text.description
        parser.epilog = "\n".join(["examples:", *_lines(text, parser.prog.split()[0])])
        parser.formatter_class = _ExamplesFormatter
    for group in parser._actions:
        if isinstance(group, argparse._SubParsersAction):
            for name, inner in group.choices.items():
                add_help_texts(inner, (*words, name))


def _lines(text: HelpText, program: str) -> list[str]:
    lines = []
    for command, purpose in text.examples:
        lines += [f"  # {purpose}"] if purpose else []
        lines.append(f"  {program} {command}")
    return lines


class _ExamplesFormatter(argparse.HelpFormatter):
    """Formatter that wraps the description but leaves the lines of examples alone."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith("examples:"):
            return text
        return super()._fill_text(text, width, indent)
