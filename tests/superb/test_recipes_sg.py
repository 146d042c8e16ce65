"""The recipes of SUPERB-SG's tasks and of OOD-ASR have s3prl's values and fit its tasks."""

from __future__ import annotations

import ast
from importlib.util import find_spec
from pathlib import Path

import pytest

from s3prl_dphubert.superb import recipe
from s3prl_dphubert.superb.prepare import common_voice
from s3prl_dphubert.superb.report import recipe_page
from s3prl_dphubert.superb.tasks import all_tasks, core_tasks
from tests.superb.test_recipes import differences, flat, is_place, plain

RECIPES = recipe.recipe_folders()
# What s3prl's YAML has: total_steps, gradient_clipping, gradient_accumulate_steps, log_step, eval_step,
# save_step, max_keep, optimizer.lr, and batch size
OFFICIAL = {
    "SE": (150_000, 1.0, 1, 1250, 1250, 6250, 100, 1e-4, 8),  # enhancement_stft/configs/cfg_voicebank.yaml
    "SS": (150_000, 1.0, 1, 2000, 2000, 10_000, 100, 1e-4, 8),  # separation_stft/configs/cfg.yaml
    "ST": (32_000, 10, 8, 100, 2000, 250, 1, 1e-3, None),  # speech_translation/config.yaml
    "VC": (10_000, 1, 1, 100, 1000, 1000, 10, 1e-4, 6),  # a2o-vc-vcc2020/config_taco2_ar.yaml
    "OOD-ASR": (500_000, 1, 1, 200, 2000, 200, 1, 1e-4, 16),  # ctc/cv_config/cv_es.yaml
}
FIELDS = (
    "total_steps",
    "gradient_clipping",
    "gradient_accumulate_steps",
    "log_step",
    "eval_step",
    "save_step",
    "max_keep",
)
VALUES = {  # what else those files state about the model, by its place below downstream_expert
    "SE": {
        "datarc.n_fft": 512,
        "datarc.win_length": 512,
        "datarc.window": "hann",
        "modelrc.rnn_layers": 3,
        "modelrc.hidden_size": 896,
        "modelrc.dropout": 0.5,
        "modelrc.loss_type": "MSE",
        "modelrc.mask_type": "NPSM",
        "datarc.num_speakers": 1,
    },
    "SS": {"modelrc.hidden_size": 896, "modelrc.mask_type": "NPSM", "datarc.num_speakers": 2},
    "ST": {
        "criterionrc.label_smoothing": 0.1,
        "generatorrc.beam": 20,
        "generatorrc.max_len_b": 400,
        "modelrc.arch": "s2t_transformer",
        "modelrc.encoder_layers": 3,
        "modelrc.decoder_layers": 3,
        "datarc.max_tokens": 10_000,
    },
    "VC": {
        "modelrc.encoder_type": "taco2",
        "modelrc.hidden_dim": 1024,
        "modelrc.ar": True,
        "datarc.fbank_config.n_shift": 256,
        "datarc.fbank_config.fmax": 7600,
        "datarc.eval_batch_size": 5,
    },
    "OOD-ASR": {
        "model.project_dim": 1024,
        "model.RNNs.total_rate": 320,
        "model.RNNs.dim": [1024, 1024],
        "model.RNNs.proj": [True, True],
        "model.RNNs.sample_style": "drop",
    },
}


def config(task, part=None):
    configs = recipe.load(RECIPES[task]).configs
    return configs[part] if part else next(iter(configs.values()))


def test_the_five_are_beyond_the_ten():
    assert list(OFFICIAL) == [task.name for task in all_tasks() if task not in core_tasks()]


@pytest.mark.parametrize("task", OFFICIAL)
def test_numbers_are_s3prls_but_for_what_the_page_states(task):
    values, changed = config(task), differences(task)
    *runner, rate, size = OFFICIAL[task]
    for name, official in zip(FIELDS, runner, strict=True):
        ours = values["runner"][name]
        if f"runner.{name}" in changed:
            assert changed[f"runner.{name}"] == (str(official), str(ours)) and ours != official
        else:
            assert ours == official, name
    assert values["optimizer"]["lr"] == rate
    batch = recipe_page.batch(values)
    assert batch is None if size is None else batch[0] == size
    flattened = flat(values["downstream_expert"])
    assert {name: flattened[name] for name in VALUES[task]} == {n: plain(v) for n, v in VALUES[task].items()}
    assert set(changed) <= flat(values).keys()


def test_parts_of_ood_asr_differ_in_corpus_and_metric_only():
    parts = {name: flat(config("OOD-ASR", name)) for name in ("es", "ar", "zh", "spon")}
    shared = {key for key in parts["es"] if len({str(values.get(key)) for values in parts.values()}) == 1}
    apart = set().union(*parts.values()) - shared
    corpus = {"downstream_expert.corpus.name", "downstream_expert.text.vocab_file"}
    corpus |= {f"downstream_expert.corpus.{key}" for key in ("path", "train", "dev", "test")}
    assert apart == {*corpus, "downstream_expert.metric", "runner.eval_step"}
    assert [values["downstream_expert.metric"] for values in parts.values()] == [
        ["wer"],
        ["wer"],
        ["cer"],
        ["wer"],
    ]
    assert [values["runner.eval_step"] for values in parts.values()] == [2000, 5000, 5000, 2000]
    letters = (RECIPES["OOD-ASR"] / "letters_en.txt").read_text().split("\n")
    assert "".join(letters) == " 'ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    assert set(common_voice.LANGUAGES) == {"es", "ar", "zh"}


def test_parts_of_vc_are_four_speakers():
    (task,) = (task for task in all_tasks() if task.name == "VC")
    assert [part.override.rpartition("=")[2] for part in task.parts] == ["TEF1", "TEF2", "TEM1", "TEM2"]
    assert is_place(config("VC")["downstream_expert"]["datarc"]["stats_root"])


def asked(path: Path, names: dict[str, str]) -> set[str]:
    """Keys that a module reads of ``downstream_expert``, dotted.

    Args:
        path: of s3prl's module.
        names: variables that hold a part of it -> which.
    """
    dotted_keys = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            inner = ast.unparse(node.value)
            for name, place in names.items():
                if inner.startswith(name):
                    keys = [key.strip("]'\"") for key in inner.removeprefix(name).split("[") if key]
                    dotted_keys.add(".".join([*filter(None, [place]), *keys, str(node.slice.value)]))
    return dotted_keys


@pytest.mark.parametrize("task", ["ST", "VC", "SE", "SS"])
def test_a_configuration_has_every_key_that_s3prl_reads(task):
    """Also where the task cannot run for want of a package."""
    (downstream,) = (each.downstream for each in all_tasks() if each.name == task)
    spec = find_spec("s3prl")
    path = Path(spec.submodule_search_locations[0]) / "downstream" / downstream / "expert.py"
    held = {"downstream_expert": ""} | {
        f"self.{name}": name for name in ("datarc", "loaderrc", "modelrc", "asr_datarc")
    }
    held["self.asr_datarc"] = "asrrc.datarc"
    held["rc"] = "asrrc"
    wanted = {key for key in asked(path, held) if "asr_bperc" not in key}
    there = flat(config(task)["downstream_expert"])
    known = {".".join(key.split(".")[: n + 1]) for key in there for n in range(key.count(".") + 1)}
    optional = {"datarc.eval_list_file"}  # conversion of one's own recordings
    assert len(wanted) > 5
    assert wanted - known <= optional
