"""``superb recipe`` prints what s3prl's run_downstream takes, without a checkout of anything."""

from __future__ import annotations

import pytest
import yaml

from s3prl_dphubert.cli import main
from s3prl_dphubert.utils import resources
from tests.helpers.s3prl_runs import python
from tests.helpers.superb_runs import RUNNER, SMALL, corpora

CLI = ("-m", "s3prl_dphubert.cli", "superb", "recipe")
OPTIONS = ("-u", "dphubert_local", "-k", str(resources.find("assets/hubert_mini")), "--device", "cpu")


@pytest.mark.slow
@pytest.mark.s3prl
@pytest.mark.parametrize("task", ["ks", "asr"])
def test_s3prl_trains_with_a_printed_recipe_from_an_empty_folder(task, tmp_path):
    corpora(tmp_path / "data", [task])
    here = tmp_path / "empty"
    here.mkdir()
    batch = SMALL[task]["datarc"]
    values = {f"runner.{name}": value for name, value in RUNNER.items()}
    values |= {f"downstream_expert.datarc.{name}": value for name, value in batch.items()}
    changes = [word for name, value in values.items() for word in ("--set", f"{name}={value}")]
    printed = python(*CLI, task, "--data", str(tmp_path / "data"), *changes, cwd=here).ok()
    (here / f"{task}.yaml").write_text(printed.out)
    downstream = printed.out.split()[4]
    words = ("-m", "train", "-n", "first", "-d", downstream, "-c", f"{task}.yaml")
    python("-m", "s3prl.run_downstream", *words, *OPTIONS, cwd=here).ok()
    assert (here / "result" / "downstream" / "first" / "states-2.ckpt").is_file()


def test_a_recipe_that_cannot_be_printed_is_one_line(tmp_path, capsys):
    data = ("--data", str(tmp_path))
    for words, message in (
        (["ks", *data], "lacks speech_commands_v0.01, "),
        (["er", *data, "--part", "fold6"], "--part is 'fold6', allowed: fold1, fold2, fold3, fold4, fold5"),
        (["kss", *data], "unknown task 'kss'; available: PR"),
    ):
        assert main(["superb", "recipe", *words]) == 2
        said = capsys.readouterr()
        assert message in said.err and not said.out


def test_the_rate_fits_the_upstream(tmp_path, capsys):
    corpora(tmp_path / "data", ["sid"])
    for upstream, rate in (("dphubert", 5e-3), ("hubert_base", 1e-4)):
        words = ["superb", "recipe", "sid", "--data", str(tmp_path / "data"), "--upstream", upstream]
        assert main(words) == 0
        assert yaml.safe_load(capsys.readouterr().out)["optimizer"]["lr"] == rate
