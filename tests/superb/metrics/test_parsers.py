"""From what s3prl prints and writes to metrics in the leaderboard's units."""

from __future__ import annotations

import importlib
from collections import defaultdict
from pathlib import Path

import pytest
import torch

from s3prl_dphubert.errors import ResultError
from s3prl_dphubert.superb.metrics.parsers import Output
from s3prl_dphubert.superb.tasks import all_tasks, core_tasks, find
from s3prl_dphubert.utils.edit_distance import edit_distance
from tests.helpers.golden import GOLDEN

SINGLE = {
    "PR": ("test loss: 0.41\ntest per: 0.0541\n", {"per": 5.41}),
    "ASR": ("test-clean loss: 0.1\ntest-clean uer: 1.9\ntest-clean wer: 6.42\n", {"wer": 6.42}),
    "KS": ("test acc: 0.963\n", {"acc": 96.3}),
    "SID": ("[Runner] test: 100%\rtest acc: 0.8142\n", {"acc": 81.42}),
    "ASV": ("sv-voxceleb1/test-EER: 0.0511\n", {"eer": 5.11}),
    "IC": ("test acc: 0.9834\n", {"acc": 98.34}),
    "SF": (
        "test slot_type_f1: 0.8853\ntest slot_value_cer: 0.252\ntest slot_edit_f1_full: 77.1\n",
        {"f1": 88.53, "cer": 25.2},
    ),
    "ST": ("BLEU = 15.53 47.1/21.2 (BP = 1.000 ratio = 1.0 hyp_len = 9 ref_len = 9)\n", {"bleu": 15.53}),
}


@pytest.mark.parametrize("name", SINGLE)
def test_printed_metrics(name):
    text, wanted = SINGLE[name]
    assert find(name).read({"": Output(text)}) == pytest.approx(wanted)


def test_the_last_evaluation_counts():
    text = "test acc: 0.1\ntest acc: 1e-05\ndev acc: 0.9\nlatest acc: 0.7\n"
    assert find("KS").read({"": Output(text)}) == pytest.approx({"acc": 1e-3})


def test_folds_and_speakers_are_averaged_and_languages_kept_apart():
    folds = {f"fold{n}": Output(f"test acc: 0.6{n}\n") for n in range(1, 6)}
    assert find("ER").read(folds) == pytest.approx({"acc": 63.0})
    with pytest.raises(ResultError, match="no output of fold2, fold4"):
        find("ER").read({name: folds[name] for name in ("fold1", "fold3", "fold5")})
    line = "Mean MCD, f0RMSE, f0CORR, DDUR, CER, WER, accept rate: 7.{} 30.10 0.350 0.250 2.1 4.2 9{}.00\n"
    speakers = {name: Output(line.format(n, n)) for n, name in enumerate(("TEF1", "TEF2", "TEM1", "TEM2"))}
    assert find("VC").read(speakers) == pytest.approx({"mcd": 7.15, "wer": 4.2, "asv": 91.5})
    languages = {name: Output(f"test wer: 0.{n}\n") for n, name in enumerate(("es", "ar", "spon"), start=2)}
    languages["zh"] = Output("test cer: 0.5\ntest wer: 0.9\n")
    wanted = {"wer_es": 20.0, "wer_ar": 30.0, "cer_zh": 50.0, "wer_spon": 40.0}
    assert find("OOD-ASR").read(languages) == pytest.approx(wanted)


def test_written_metrics(tmp_path):
    (tmp_path / "test_metrics.txt").write_text("stoi 0.939\npesq 2.58\nsi_sdr 9.4\n")
    assert find("SE").read({"": Output(folder=tmp_path)}) == pytest.approx({"pesq": 2.58, "stoi": 93.9})
    assert find("SS").read({"": Output(folder=tmp_path)}) == pytest.approx({"si_sdri": 9.4})
    (tmp_path / "log.log").write_text(
        "test at step 9: 0.5\nNew best on dev at step 9: 1\ntest at step 0: 0.75\n"
    )
    assert find("SID").read({"": Output(folder=tmp_path)}) == pytest.approx({"acc": 75.0})


def test_words_of_a_language_model_are_counted_from_the_texts(tmp_path):
    """a b c d -> a x c (1 substitution, 1 deletion), e f -> e f g (1 insertion): 3 of 6 words."""
    (tmp_path / "test-clean-LM-hyp.ark").write_text("u1 a x c\nu2 e f g\n")
    (tmp_path / "test-clean-LM-ref.ark").write_text("u2 e f\nu1 a b c d\n")
    output = Output("test-clean wer: 7.5\n", tmp_path)
    assert find("ASR").read({"": output}) == pytest.approx({"wer": 7.5, "wer_lm": 50.0})
    (tmp_path / "test-clean-LM-ref.ark").write_text("u2 e f\n")
    assert find("ASR").read({"": output}) == {"wer": 7.5}
    assert edit_distance([], ["a", "b"]) == edit_distance(["a", "b"], []) == 2


@pytest.mark.parametrize(
    ("name", "output", "message"),
    [
        ("PR", Output("test loss: 1\n"), "PR, per: no line 'test per: NUMBER' in the standard output"),
        ("KS", Output(), "or a line 'test at step *: NUMBER' in log.log"),
        ("PR", Output("test per: nan\n"), "is nan, allowed: a finite number"),
        ("SE", Output(), "no file test_metrics.txt in an expdir, none was given"),
        ("QbE", Output(), "no expdir was given"),
        ("SD", Output(folder=Path("here")), "no reference was given, allowed: the RTTM of the test set"),
    ],
)
def test_what_is_not_found_is_named(name, output, message):
    with pytest.raises(ResultError) as caught:
        find(name).read({"": output})
    assert message in str(caught.value)


def test_the_table_is_whole():
    assert [task.name for task in core_tasks()] == [
        "PR",
        "ASR",
        "KS",
        "QbE",
        "SID",
        "ASV",
        "SD",
        "ER",
        "IC",
        "SF",
    ]
    assert len(all_tasks()) == 15
    entries = [prediction.entry for task in all_tasks() for prediction in task.predictions]
    assert len(entries) == len(set(entries)) == 19
    for task in all_tasks():
        names = {part.name for part in task.parts}
        assert all(prediction.part in names for prediction in task.predictions)
        assert all(callable(prediction.format) for prediction in task.predictions)
        assert all(not metric.part or metric.part in names for metric in task.metrics)
        for metric in task.metrics:
            assert (metric.fbank is None) == (metric.sota is None)
            if metric.sota is not None:
                assert (metric.sota > metric.fbank) == (metric.better == "higher")
    with pytest.raises(ResultError, match="unknown task 'SV'; available: PR, ASR"):
        find("SV")


OUTPUTS = GOLDEN / "superb_outputs"
KEPT = {  # part of a task -> what was read by eye from the output of a real evaluation
    "SE": {"pesq": 1.0278, "stoi": 66.8308},
    "SS": {"si_sdri": -6.267},
    "ST": {"bleu": 0.0},
    "VC": {"mcd": 11.37, "wer": 100.0, "asv": 25.0},
    "OOD-ASR": {"wer_es": 100.0},
}


@pytest.mark.parametrize("name", KEPT)
def test_kept_output_is_read(name):
    """Of s3prl on the miniature corpora; of its evaluate.py for VC, with a recogniser of random weights."""
    task, folder = find(name), OUTPUTS / {"OOD-ASR": "es"}.get(name, name.lower())
    output = Output((folder / "stdout.txt").read_text(), folder)
    metrics = [metric for metric in task.metrics if name != "OOD-ASR" or metric.part == "es"]
    assert {metric.name: metric.read(output) for metric in metrics} == pytest.approx(KEPT[name], abs=1e-3)
    for prediction in task.predictions:
        content = prediction.format({"": (folder / prediction.source).read_bytes()})
        assert (content.items, content.faults) == (2 if name == "ST" else content.items, ())
    if name == "VC":
        silent = Output(folder=folder)
        assert {metric.name: metric.read(silent) for metric in metrics} == pytest.approx(KEPT[name])


class Nowhere:
    """Takes what s3prl logs for TensorBoard."""

    def add_scalar(self, *_, **__):
        pass


def expert(downstream: str, folder, **attributes):
    """The expert of s3prl as it is, without its corpus and model."""
    pytest.importorskip("s3prl", reason="s3prl is an extra; this runs its own evaluation code")
    try:
        module = importlib.import_module(f"s3prl.downstream.{downstream}.expert")
    except ImportError as error:
        pytest.skip(f"s3prl's {downstream} needs a package that is not here: {error}")
    made = module.DownstreamExpert.__new__(module.DownstreamExpert)
    torch.nn.Module.__init__(made)
    made.__dict__.update(expdir=str(folder), best_score=torch.zeros(1), **attributes)
    return made


def evaluate(made, split: str, records: dict, capsys) -> Output:
    """Return the output that the expert prints and writes at the end of an evaluation."""
    capsys.readouterr()
    made.log_records(split, defaultdict(list, records), Nowhere(), 0, batch_ids=[], total_batch_num=0)
    return Output(capsys.readouterr().out, Path(made.__dict__["expdir"]))


@pytest.mark.s3prl
@pytest.mark.parametrize(("name", "metrics"), [("PR", ["per"]), ("SF", ["slot_type_f1", "slot_value_cer"])])
def test_s3prls_own_ctc_evaluation_is_read(name, metrics, tmp_path, capsys):
    corpus = {"name": "test"}
    made = expert(
        "ctc", tmp_path, corpus=corpus, metrics=metrics, metric_higher_better=name == "SF", save_best_on="dev"
    )
    said, true = ["a b c", "d"], ["a b x", "d"]  # 1 of 4 phones is wrong
    if name == "SF":  # one of two utterances has its slot; of its 4 letters one is wrong, 2 more are missing
        said, true = ["B-city rome E-city", "go"], ["B-city roma E-city", "B-day mo E-day go"]
    records = {"loss": [1.0], "hypothesis": said, "groundtruth": true, "filename": ["u1", "u2"]}
    output = evaluate(made, "test", records, capsys)
    wanted = {"PR": {"per": 25.0}, "SF": {"f1": 50.0, "cer": 50.0}}
    assert find(name).read({"": output}) == pytest.approx(wanted[name])
    files = {"": (tmp_path / find(name).predictions[0].source).read_bytes()}
    assert find(name).predictions[0].format(files).items == 2


@pytest.mark.s3prl
def test_s3prls_own_asr_evaluation_is_read(tmp_path, capsys):
    made = expert("asr", tmp_path, decoder=None)
    texts = {"pred_tokens": ["a b"], "target_tokens": ["a b"], "pred_words": [["a", "b"]]}
    records = {"loss": [1.0], "filenames": ["u1"], "target_words": [["a", "c", "d"]], **texts}
    output = evaluate(made, "test-clean", records, capsys)
    assert find("ASR").read({"": output}) == pytest.approx({"wer": 100 * 2 / 3})
    assert (tmp_path / find("ASR").predictions[0].source).read_text() == "u1 a b\n"


@pytest.mark.s3prl
@pytest.mark.parametrize(("name", "downstream"), [("ER", "emotion"), ("IC", "fluent_commands")])
def test_s3prls_own_classification_is_read(name, downstream, tmp_path, capsys):
    made = expert(downstream, tmp_path, fold="fold1")
    labels = [("on", "light", "none"), ("off", "light", "none")] if name == "IC" else ["neu", "hap"]
    records = {"acc": [1, 0, 1, 1], "loss": [1.0], "intent_loss": [1.0], "filename": ["a", "b"]}
    output = evaluate(made, "test", {**records, "predict": labels, "truth": labels}, capsys)
    task = find(name)
    outputs = {part.name: output for part in task.parts}
    assert task.read(outputs) == pytest.approx({"acc": 75.0})
    assert task.read({part: Output(folder=tmp_path) for part in outputs}) == pytest.approx({"acc": 75.0})
    prediction = task.predictions[0]
    content = prediction.format({"": (tmp_path / prediction.source).read_bytes()})
    assert (content.items, content.faults) == (2, ())
