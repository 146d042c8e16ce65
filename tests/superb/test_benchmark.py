"""Differences from the benchmark's recipes, and the test items that a run has predicted."""

from __future__ import annotations

import pytest
import yaml

from s3prl_dphubert.errors import ConfigError
from s3prl_dphubert.superb.recipe import load, recipe_folders
from s3prl_dphubert.superb.tasks import find
from s3prl_dphubert.utils import resources
from tests.helpers import full_submission as full
from tests.helpers.superb_runs import recipe_folder

RECIPES = resources.find("downstream_recipes")


def test_shipped_recipes_are_their_benchmarks():
    for root, benchmark, count in ((RECIPES, "SUPERB", 15), (RECIPES / "free_superb", "FreeSUPERB", 12)):
        recipes = [load(folder) for folder in recipe_folders(root).values()]
        assert len(recipes) == count
        assert {(recipe.needs.benchmark, recipe.changes) for recipe in recipes} == {(benchmark, ())}


def test_changes_are_listed_but_for_what_superb_leaves_free():
    free = ["optimizer.lr=1.0e-2", "runner.log_step=5", "downstream_expert.datarc.num_workers=0"]
    assert load(RECIPES / "ks", [*free, "er.runner.total_steps=4"]).changes == ()
    place = "downstream_expert.datarc.speech_commands_root='{data}/words'"
    assert load(RECIPES / "ks", [place]).changes == ()
    changed = load(RECIPES / "er", ["runner.total_steps=2000", "downstream_expert.modelrc.projector_dim=16"])
    assert changed.changes == (
        "downstream_expert.modelrc.projector_dim 16 instead of 256",
        "runner.total_steps 2000 instead of 30000",
    )
    assert load(RECIPES / "free_superb" / "ks", ["runner.total_steps=3000"]).changes == (
        "runner.total_steps 3000 instead of 2000",
    )


def test_a_recipe_of_the_users_own_is_compared_with_superbs(tmp_path):
    folder = recipe_folder(tmp_path, config={"runner": {"total_steps": 40, "eval_step": 40, "save_step": 40}})
    assert "runner.total_steps 40 instead of 200000" in load(folder).changes
    needs = yaml.safe_load((folder / "recipe.yaml").read_text())
    (folder / "recipe.yaml").write_text(yaml.safe_dump({**needs, "benchmark": "mine"}))
    assert (load(folder).needs.benchmark, load(folder).changes) == ("mine", ())
    (folder / "recipe.yaml").write_text(yaml.safe_dump({**needs, "benchmark": " "}))
    with pytest.raises(ConfigError, match="benchmark is empty, allowed: a name"):
        load(folder)


def test_a_recipe_asks_for_metrics_that_its_task_has(tmp_path):
    assert load(RECIPES / "asr").needs.extra_metrics == ()
    assert load(RECIPES / "free_superb" / "asr").needs.extra_metrics == ("cer",)
    folder = recipe_folder(tmp_path, needs={"extra_metrics": ["cer"]})
    with pytest.raises(ConfigError, match="extra_metrics has 'cer', allowed: none"):
        load(folder)


def test_processes_share_a_batch_that_can_be_divided():
    assert load(RECIPES / "sd").can_share_batch(4) and not load(RECIPES / "sd").can_share_batch(3)
    assert load(RECIPES / "ks").can_share_batch(1) and not load(RECIPES / "ks").can_share_batch(2)
    assert load(RECIPES / "qbe").can_share_batch(8)  # nothing is trained


def test_test_items_are_counted_in_the_predictions(tmp_path):
    for entry, text in full.texts().items():
        for task in map(find, ("PR", "ASR", "KS", "QbE", "SID", "ASV", "ER", "IC", "SF")):
            for prediction in task.predictions:
                if prediction.entry == entry:
                    path = tmp_path / task.folder / prediction.part / prediction.source
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(text)
    (tmp_path / "sd/scoring/predictions").mkdir(parents=True)
    for number in range(7):
        (tmp_path / f"sd/scoring/predictions/{number}.h5").touch()
    counted = {
        name: find(name).count_items(tmp_path / name.lower())
        for name in ("ASR", "KS", "QbE", "ER", "SF", "SD")
    }
    assert counted == {"ASR": 2620, "KS": 3081, "QbE": 100, "ER": 5531, "SF": 2800, "SD": 7}
    assert find("SD").items_fault(7) == "7 test items instead of 3000"
    assert find("SF").items_fault(300) == "300 test items instead of 1400 to 2800"
    assert not any(find(name).items_fault(counted[name]) for name in ("ASR", "KS", "QbE", "ER", "SF"))
    (tmp_path / "er/fold3/test_fold3_predict.txt").unlink()
    assert find("ER").count_items(tmp_path / "er") is None
    assert find("VC").count_items(tmp_path / "vc") is None
    assert find("VC").items_fault(3) == ""
