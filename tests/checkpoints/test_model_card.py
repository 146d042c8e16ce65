"""Model cards: metadata that the Hub's own client accepts, origin and licence, scores, and what stays."""

from __future__ import annotations

import datetime
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from s3prl_dphubert.checkpoints.card_metadata import CardMetadata, teacher_metadata
from s3prl_dphubert.checkpoints.directory import save_model
from s3prl_dphubert.checkpoints.model_card import model_card, update_card
from s3prl_dphubert.cli import main
from s3prl_dphubert.errors import CheckpointError, ConfigError
from s3prl_dphubert.superb.scoring.score_file import ScoreRecord, write
from tests.helpers.golden import GOLDEN
from tests.helpers.hub_server import Repo, served, use
from tests.helpers.models import tiny

PRUNED = str(GOLDEN / "wavlm_pruned.pth")


def converted(folder: Path, *options: str) -> ModelCard:
    assert main(["convert", PRUNED, str(folder), *options]) == 0
    return ModelCard.load(folder / "README.md")


def test_metadata_is_what_the_hub_reads(tmp_path):
    options = ["--license", "cc-by-sa-3.0", "--base-model", "microsoft/wavlm-base-plus", "--language", "en"]
    card = converted(tmp_path / "small", *options, "--datasets", "openslr/librispeech_asr")
    data = card.data.to_dict()
    assert data["license"] == "cc-by-sa-3.0"
    assert (data["base_model"], data["base_model_relation"]) == ("microsoft/wavlm-base-plus", "finetune")
    assert (data["datasets"], data["language"]) == (["openslr/librispeech_asr"], ["en"])
    assert (data["library_name"], data["pipeline_tag"]) == ("transformers", "feature-extraction")
    assert {"speech", "custom_code", "s3prl-dphubert"} <= set(data["tags"])
    assert "model-index" not in data
    for part in ("load_model", "trust_remote_code=True", "run_downstream", "torch.hub.load", "export FOLDER"):
        assert part in card.text  # five ways to load it
    assert "@inproceedings{peng2023dphubert" in card.text
    assert "![Units of each layer](units.png)" in card.text
    assert (tmp_path / "small" / "units.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_unknown_is_said_and_not_invented(tmp_path):
    card = converted(tmp_path / "small")
    data = card.data.to_dict()
    assert not {"license", "base_model", "base_model_relation", "datasets", "language"} & data.keys()
    assert "| licence of the weights | unknown |" in card.text
    assert "licence of the weights is **unknown**" in card.text


def test_licence_and_base_model_follow_the_teacher(tmp_path):
    assert teacher_metadata("wavlm_large") == CardMetadata("cc-by-sa-3.0", "microsoft/wavlm-large")
    assert teacher_metadata("hubert_mini") == CardMetadata("cc-by-sa-4.0", None)
    assert teacher_metadata(PRUNED) == teacher_metadata("torchaudio:HUBERT_BASE") == CardMetadata()
    converted(tmp_path / "first", "--license", "apache-2.0", "--base-model", "facebook/hubert-base-ls960")
    assert main(["convert", str(tmp_path / "first"), str(tmp_path / "second")]) == 0
    data = ModelCard.load(tmp_path / "second" / "README.md").data
    assert (data.license, data.base_model) == ("apache-2.0", "facebook/hubert-base-ls960")
    stated = CardMetadata(license="mit").of("wavlm_large")
    assert (stated.license, stated.base_model) == ("mit", "microsoft/wavlm-large")


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ("---\nlicense: mit\n---\n# x\n", CardMetadata("mit", "user/teacher")),
        ("---\nlicense: mit\nbase_model: a/b\n---\n", CardMetadata("mit", "user/teacher")),
        (
            "---\nlicense: mit\nbase_model: a/b\ntags: [s3prl-dphubert]\n---\n",
            CardMetadata("mit", "a/b"),  # compressed once more
        ),
        ("---\nlicense: [not, one]\n---\n", CardMetadata(None, "user/teacher")),
        ("---\nlicense: {{\n---\n", CardMetadata(None, "user/teacher")),
        (None, CardMetadata(None, "user/teacher")),
    ],
)
def test_teachers_on_the_hub_state_their_licence(card, expected, tmp_path, monkeypatch):
    with served() as hub:
        use(hub, tmp_path, monkeypatch)
        hub.repos["user/teacher"] = Repo({} if card is None else {"README.md": card.encode()})
        assert teacher_metadata("user/teacher") == expected


def test_wrong_values_are_refused(tmp_path, capsys):
    with pytest.raises(ConfigError) as caught:
        CardMetadata("Apache 2.0!", "no id at all", ("a b",), ("English",))
    for part in (
        "license is 'Apache 2.0!'",
        "base_model is 'no id",
        "datasets is 'a b'",
        "language is 'English'",
    ):
        assert part in str(caught.value)
    assert main(["convert", PRUNED, str(tmp_path / "a"), "--license", "My Own"]) == 2
    assert "license is 'My Own', allowed: an id of the Hub" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


def score(folder: Path, task: str, seed: int = 0, benchmark: str = "SUPERB", **metrics: float) -> None:
    date = datetime.datetime(2026, 1, 31).isoformat()
    record = ScoreRecord(
        task, "small", metrics, seed, 1e-4, "0.4.18", date, "superb run", benchmark=benchmark
    )
    write(record, folder / benchmark / f"{task}{seed}")


def test_scores_of_superb_run_become_the_model_index(tmp_path, capsys):
    folder = tmp_path / "small"
    converted(folder, "--license", "apache-2.0")
    readme = folder / "README.md"
    readme.write_text(readme.read_text().replace("# small", "# small\n\nWritten by hand."))
    score(tmp_path / "run", "KS", acc=96.0)
    score(tmp_path / "run", "KS", seed=1, acc=97.0)
    score(tmp_path / "run", "PR", per=9.67)
    score(tmp_path / "run", "KS", benchmark="FreeSUPERB", acc=50.0)
    assert main(["card", str(folder), "--scores", str(tmp_path / "run"), "--language", "en"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(readme)
    card = ModelCard.load(readme)
    results = {(r.dataset_name, r.metric_type): r for r in card.data.eval_results}
    assert {key: r.metric_value for key, r in results.items()} == {
        ("SUPERB KS", "acc"): 96.5,
        ("SUPERB PR", "per"): 9.67,
    }
    assert {r.task_type for r in results.values()} == {"keyword-spotting", "phoneme-recognition"}
    assert (card.data.license, card.data.language, card.data.model_name) == ("apache-2.0", ["en"], "small")
    assert "Written by hand." in card.text
    assert "| SUPERB | KS | Acc (%) | 96.50 | 2 |" in card.text
    options = ["--scores", str(tmp_path / "run"), "--benchmark", "FreeSUPERB"]
    assert main(["card", str(folder), *options]) == 0
    card = ModelCard.load(readme)
    assert [r.dataset_name for r in card.data.eval_results] == ["FreeSUPERB KS"]
    assert "96.50" not in card.text
    assert main(["card", str(folder), "--scores", str(tmp_path / "run"), "--upstream", "other"]) == 2
    assert "upstream is 'other', allowed: small" in capsys.readouterr().err


def test_other_cards_get_the_section_and_keep_their_metadata(tmp_path):
    folder = save_model(
        tiny("hubert"), tmp_path / "model", "---\ntags: [mine]\nwidget: []\n---\n\n# Mine\n\nText.\n"
    )
    score(tmp_path / "run", "KS", acc=96.0)
    assert main(["card", str(folder), "--scores", str(tmp_path / "run")]) == 0
    card = ModelCard.load(folder / "README.md")
    assert card.data.tags[0] == "mine"
    assert card.text.index("Text.") < card.text.index("## Scores") < card.text.index("96.00")
    (folder / "README.md").write_text("---\na: {{\n---\n")
    with pytest.raises(CheckpointError, match=r"README\.md: its metadata cannot be read"):
        update_card(folder, CardMetadata())
    with pytest.raises(CheckpointError, match="no such file; give the directory of a model"):
        update_card(tmp_path, CardMetadata())


def test_loading_a_model_imports_no_plotting_library():
    modules = "s3prl_dphubert.checkpoints.load, s3prl_dphubert.checkpoints.model_card"
    code = f"import sys, {modules}; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_pictures_name_what_is_left(tmp_path):
    card = model_card("title", tiny("large").config, CardMetadata(), {"teacher": "x"})
    assert set(card.pictures) == {"units.png"}
    folder = save_model(tiny("large"), tmp_path / "model", card)
    assert (folder / "units.png").read_bytes() == card.pictures["units.png"]
    assert (folder / "README.md").read_text() == card.text
