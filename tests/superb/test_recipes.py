"""The shipped recipes have SUPERB's values, say what they change, and fit s3prl's tasks."""

from __future__ import annotations

import hashlib
import importlib
import json
import math
import re
from pathlib import Path

import pytest

from s3prl_dphubert.errors import ConfigError
from s3prl_dphubert.superb import recipe
from s3prl_dphubert.superb.prepare import STEPS
from s3prl_dphubert.superb.report import recipe_page
from s3prl_dphubert.superb.tasks import all_tasks, core_tasks, find
from s3prl_dphubert.utils import resources
from tests.helpers import published_corpora
from tests.helpers.corpora import CONSONANTS, VOWELS

RECIPES = recipe.recipe_folders()
TEN = [task.name for task in core_tasks()]
TRAINED = [task.name for task in core_tasks() if task.trained]
# What s3prl 0.4.18 has in the YAML that stands behind:
# total_steps, gradient_clipping, batch size, gradient_accumulate_steps, eval_step, save_step, optimizer.lr
OFFICIAL = {
    "PR": (100_000, 1, 16, 2, 1000, 100, 1e-2),  # ctc/libriphone.yaml
    "ASR": (200_000, 1, 32, 1, 2000, 500, 1e-4),  # asr/config.yaml
    "KS": (200_000, 1, 32, 1, 5000, 1000, 1e-4),  # speech_commands/config.yaml
    "SID": (200_000, 1, 8, 4, 5000, 1000, 1e-4),  # voxceleb1/config.yaml
    "ASV": (200_000, 1000, 10, 5, 10_000, 10_000, 1e-4),  # sv_voxceleb1/configs/amsoftmax.yaml
    "SD": (30_000, 1, 8, 4, 500, 500, 1e-4),  # diarization/config.yaml
    "ER": (30_000, 1, 4, 8, 1000, 1000, 1e-4),  # emotion/config.yaml
    "IC": (200_000, 1, 32, 1, 5000, 250, 1e-4),  # fluent_commands/config.yaml
    "SF": (200_000, 1, 32, 1, 2000, 500, 1e-4),  # ctc/snips.yaml
}
WHOLE = {  # SHA-256 over all values of those files but places and models that are not selected
    "PR": "3eb2fe11963dc1c2",
    "ASR": "ecdc5cb6e29e33e5",
    "KS": "627583786a985fd4",
    "QbE": "89523729600bb061",  # quesst14_dtw/config.yaml
    "SID": "354ef7a357bbf072",
    "ASV": "5f87eddc4560706a",
    "SD": "ce3a480757b55560",
    "ER": "97c43c8e175d0bc2",
    "IC": "2cc57a94b881b6ba",
    "SF": "dabdf6bcf01a6886",
}
RATES = {  # published for compressed models (LightHuBERT's issue 2): rate, utterances a step
    "PR": (5e-4, 32),
    "ASR": (1e-4, 32),
    "KS": (1e-4, 32),
    "SID": (5e-3, 32),
    "ASV": (5e-5, 50),
    "SD": (5e-4, 32),
    "ER": (1e-4, 32),
    "IC": (1e-4, 32),
    "SF": (1e-4, 32),
}


def config(task):
    return next(iter(recipe.load(RECIPES[task]).configs.values()))


def flat(values, path=""):
    """Dotted key -> value, numbers as floats."""
    flattened = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flattened |= flat(value, f"{path}{key}.")
        else:
            flattened[path + key] = plain(value)
    return flattened


def plain(value):
    if isinstance(value, list):
        return [plain(each) for each in value]
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def is_place(value):
    return "{" in (
        value[0] if isinstance(value, list) and value and isinstance(value[0], str) else str(value)
    )


def differences(task):
    """Field -> (s3prl's value, ours), as the page states them."""
    text = (RECIPES[task] / recipe.PAGE).read_text(encoding="utf8").split("## Differs", 1)[1]
    return {
        field: (theirs, ours)
        for field, theirs, ours in re.findall(r"^\| `(\S+)` \| (.+?) \| (.+?) \|", text, re.M)
    }


def stated(text, like):
    """A value as a page writes it."""
    return text.split(", ") if isinstance(like, list) else plain(float(text))


def test_every_task_has_a_recipe_a_page_a_parser_and_where_there_is_one_a_submission_entry():
    assert len(all_tasks()) == 15
    assert list(RECIPES) == [task.name for task in all_tasks()]
    for task in all_tasks():
        assert (RECIPES[task.name] / recipe.PAGE).is_file(), task.name
        assert task.metrics and all(callable(metric.read) for metric in task.metrics)
        assert bool(task.predictions) == (task.name not in ("VC", "OOD-ASR"))


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_loads(name):
    loaded = recipe.load(RECIPES[name])
    assert loaded.task == find(name)
    assert set(loaded.needs.prepare) <= STEPS.keys()
    assert loaded.needs.sweep == (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7)


@pytest.mark.parametrize("task", TRAINED)
def test_numbers_are_s3prls(task):
    values = config(task)
    runner = values["runner"]
    steps, clipping, size, added, evaluated, saved, _ = OFFICIAL[task]
    assert (runner["total_steps"], runner["gradient_clipping"]) == (steps, clipping)
    assert (runner["eval_step"], runner["save_step"]) == (evaluated, saved)
    assert recipe_page.batch(values) == (size, added)


@pytest.mark.parametrize("task", TRAINED)
def test_rates_are_those_published_for_compressed_models(task):
    rate, utterances = RATES[task]
    values = config(task)
    assert values["optimizer"]["lr"] == rate
    assert math.prod(recipe_page.batch(values)) == utterances
    official = OFFICIAL[task][-1]
    assert (official == rate) == ("optimizer.lr" not in differences(task))


@pytest.mark.parametrize("task", TEN)
def test_a_page_states_every_difference_to_s3prl(task):
    """With the differences taken back every value is s3prl's."""
    values = {key: value for key, value in flat(config(task)).items() if not is_place(value)}
    for field, (theirs, ours) in differences(task).items():
        assert stated(ours, values[field]) == values[field], field
        values[field] = stated(theirs, values[field])
    text = json.dumps(values, sort_keys=True)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == WHOLE[task], text


@pytest.mark.parametrize("task", RECIPES)
def test_a_page_says_what_there_is_to_know(task):
    folder = RECIPES[task]
    text = (folder / recipe.PAGE).read_text(encoding="utf8")
    if recipe_page.BEGIN in text:
        assert recipe_page.fill(text, recipe.load(folder)) == text, "run `make pages`"
    for needed in ("licence", "GB", "http", f"--tasks {folder.name} --data"):
        assert needed in text, needed
    for needed in recipe.load(folder).needs.data:
        assert needed.split("/")[0] in text, needed
    top = (folder.parent / recipe.PAGE).read_text(encoding="utf8")
    assert f"({folder.name}/README.md)" in top


@pytest.mark.parametrize(
    ("task", "rows"),
    [
        ("ASR", ["| HuBERT Base | 6.42 |", "| DPHuBERT | 10.47 |", "WER % ↓"]),
        ("SF", ["| HuBERT Base | 88.53 | 25.20 |", "| DPHuBERT | 86.86 | 28.26 |", "F1 % ↑ | CER % ↓"]),
        ("QbE", ["| HuBERT Base | 7.36 |", "| DPHuBERT | 6.93 |"]),
        (
            "SID",
            ["| HuBERT Base | 81.42 |", "| DPHuBERT | 76.83 |", "8 × 4 steps = 32", "rate 5e-3", "41 GB"],
        ),
    ],
)
def test_pages_have_the_published_scores(task, rows):
    text = (RECIPES[task] / recipe.PAGE).read_text(encoding="utf8")
    assert [row for row in rows if row not in text] == []


def test_a_page_without_markers_is_refused():
    with pytest.raises(ConfigError, match="holds no <!-- numbers"):
        recipe_page.fill("# nothing\n", recipe.load(RECIPES["KS"]))


def test_pages_are_brought_up_to_date(tmp_path):
    folder = tmp_path / "ks"
    folder.mkdir()
    for name in ("config.yaml", "recipe.yaml"):
        (folder / name).write_text((RECIPES["KS"] / name).read_text())
    (folder / recipe.PAGE).write_text(f"# Mine\n{recipe_page.BEGIN}old\n{recipe_page.END}the rest\n")
    recipe_page.main([str(folder), str(tmp_path)])
    text = (folder / recipe.PAGE).read_text()
    assert text.startswith("# Mine\n") and text.endswith("the rest\n")
    assert "old" not in text and "| DPHuBERT | 96.36 |" in text


def test_the_phones_are_arpabets_with_stress():
    vowels, consonants = VOWELS.split(), CONSONANTS.split()
    assert (len(vowels), len(consonants)) == (15, 24)
    phones = [
        "SIL",
        "SPN",
        *sorted([f"{vowel}{stress}" for vowel in vowels for stress in "012"] + consonants),
    ]
    assert (RECIPES["PR"] / "phonemes.txt").read_text().splitlines() == phones
    assert len(phones) == 71


def test_the_letters_are_those_of_the_texts():
    letters = [line.split() for line in (RECIPES["ASR"] / "letters.txt").read_text().splitlines()]
    assert "".join(letter for letter, _ in letters) == "|ETAONIHSRDLUMCWFGYPBVK'XJQZ"
    assert {count for _, count in letters} == {"1"}
    slots = (RECIPES["SF"] / "letters.txt").read_text()
    assert slots == "\n".join(" ABCDEFGHIJKLMNOPQRSTUVWXYZ'") + "\n"


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    return published_corpora.build(tmp_path_factory.mktemp("corpora"))


SIZES = {  # items of each set of the miniature corpora, of ASR batches
    "PR": {"train": 12, "dev": 4, "test": 4},
    "ASR": {"train": 1, "dev-clean": 4, "test-clean": 4},
    "KS": {"train": 36, "dev": 6, "test": 6},
    "QbE": {"dev": 6, "test": 6},
    "SID": {"train": 18, "dev": 6, "test": 12},
    "ASV": {"train": 24, "test": 12},
    "SD": {"train": 8, "dev": 2, "test": 2},
    "ER": {"train": 32, "dev": 8, "test": 10},
    "IC": {"train": 8, "dev": 4, "test": 4},
    "SF": {"train": 16, "dev": 8, "test": 8},
}


@pytest.mark.s3prl
@pytest.mark.parametrize("task", TEN)
def test_s3prls_task_takes_the_shipped_configuration_and_what_was_prepared(
    task, corpora, tmp_path, monkeypatch
):
    monkeypatch.setenv("S3PRL_DPHUBERT_CACHE", str(tmp_path / "cache"))
    loaded = recipe.load(RECIPES[task])
    part, prepared = next(iter(loaded.configs)), tmp_path / "prepared"
    assert loaded.missing(corpora) == (
        [] if task != "QbE" else [place for place in loaded.needs.data if "truth" in place]
    )
    values = loaded.config(part, corpora, prepared)
    for name in loaded.needs.prepare:
        STEPS[name](corpora, prepared, values)
    expert = importlib.import_module(f"s3prl.downstream.{loaded.task.downstream}.expert").DownstreamExpert(
        upstream_dim=8, upstream_rate=320, expdir=str(tmp_path), **values
    )
    sizes = {split: len(expert.get_dataloader(split).dataset) for split in SIZES[task]}
    assert sizes == SIZES[task]
    if loaded.needs.reference and task == "SD":
        assert Path(loaded.fill(loaded.needs.reference, corpora, prepared)).is_file()
        assert Path(loaded.fill(loaded.needs.reference_dev, corpora, prepared)).is_file()


def test_recipes_ship():
    for task in TEN:
        for name in ("config.yaml", "recipe.yaml", "README.md"):
            assert resources.find(f"downstream_recipes/{task.lower()}/{name}").is_file()
