"""``predict.zip``: what is built, what is refused, and archives of others."""

from __future__ import annotations

import stat
import zipfile

import numpy as np
import pytest

from s3prl_dphubert.checkpoints.directory import save_model
from s3prl_dphubert.cli import main
from s3prl_dphubert.errors import ConfigError, ResultError
from s3prl_dphubert.model.cost import parameters, superb_macs
from s3prl_dphubert.superb.submission import archive
from s3prl_dphubert.superb.submission.form import Form, fields_of_checkpoint
from s3prl_dphubert.superb.tasks import all_tasks, find
from tests.helpers.models import tiny

h5py = pytest.importorskip("h5py", reason="s3prl's diarization writes HDF5")

STDLIST = (
    '<stdlist><detected_termlist termid="q1"><term file="d1" score="1.5"/></detected_termlist>'
    '<detected_termlist termid="q2"><term file="d1" score="-0.5"/></detected_termlist></stdlist>'
)
ANY = archive.SubmissionChecks(any_count=True)
UNEVEN = STDLIST.replace("</detected_termlist></", '<term file="d2" score="0"/></detected_termlist></')
FILES = {
    "pr/test-hyp.ark": "1-2-0001 AA B\n1-2-0002 \n",
    "asr/test-clean-noLM-hyp.ark": "1-2-0001 HELLO THERE\n1-2-0002 \n",
    "ks/test_predict.txt": "yes-a.wav yes\n_unknown_-b.wav no\n",
    "qbe/benchmark.stdlist.xml": STDLIST,
    "sid/test_predict.txt": "id10001-a-1 id10001\nid10001-a-2 id10002\n",
    "asv/test_predict.txt": "id1-a-1_id2-b-2 0.25\nid1-a-1_id1-c-3 -0.5\n",
    "sd/frame_shift": "320\n",
    **{f"er/fold{n}/test_fold{n}_predict.txt": "Ses01F neu\nSes01M hap\n" for n in range(1, 6)},
    "ic/test_predict.csv": "a.wav,change language,none,none\nb.wav,increase,heat,kitchen\n",
    "sf/test-hyp.ark": "Aditi-1 B-city rome E-city\nAditi-2 go\n",
    "se/test_metrics.txt": "stoi 0.939\npesq 2.58\nsi_sdr 9.4\n",
    "ss/test_metrics.txt": "si_sdr 9.4\n",
    "st/output-st-test.tsv": 'utt_id\thyp\tref\nu1\tja "so\tja\n',
}


@pytest.fixture
def run(tmp_path):
    """The predictions of two utterances of every task."""
    folder = tmp_path / "run"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "sd/scoring/predictions").mkdir(parents=True)
    for name in ("rec1", "rec2"):
        with h5py.File(folder / f"sd/scoring/predictions/{name}.h5", "w") as file:
            file.create_dataset("T_hat", data=np.full((5, 2), 0.5, dtype=np.float32))
    return folder


def test_every_task_is_packed_the_same_way_each_time(run, tmp_path):
    report = archive.build(run, tmp_path / "a.zip", checks=ANY)
    archive.build(run, tmp_path / "b.zip", checks=ANY)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    assert report.faults == report.notes == []
    assert report.gaps == ["ASR: asr_lm_public/predict.ark (optional)"]
    entries = {p.entry for task in all_tasks() for p in task.predictions}
    assert set(report.items) == entries - {"asr_lm_public/predict.ark"}
    with zipfile.ZipFile(tmp_path / "a.zip") as packed:
        names = packed.namelist()
        assert len(names) == 19 and "predict/sd_public/scoring/predictions/rec1.h5" in names
        assert packed.read("predict/ks_public/predict.txt").decode() == FILES["ks/test_predict.txt"]
        assert {info.external_attr >> 16 for info in packed.infolist()} == {stat.S_IFREG | 0o644}
    assert archive.check(tmp_path / "a.zip", ANY).items == report.items


def test_superbs_counts_are_asked_for(run, tmp_path):
    with pytest.raises(ResultError) as caught:
        archive.build(run, tmp_path / "a.zip")
    for wanted in (
        "pr_public/predict.ark: holds 2 items, allowed: 2620 (LibriSpeech test-clean)",
        "ks_public/predict.txt: holds 2 items, allowed: 3081",
        "ic_public/predict.csv: holds 2 items, allowed: 3793",
        "sid_public/predict.txt: holds 2 items, allowed: 8251",
        "sv_public/predict.txt: holds 2 items, allowed: 37720",
        "er_fold5_public/predict.txt: holds 2 items, allowed: 1241",
        "sd_public/scoring/predictions: holds 2 items, allowed: 3000",
        "sf_public/predict.ark: holds 2 items, allowed: 1400 to 2800 (700 test sentences of SNIPS by four",
        "qbe_public/benchmark.stdlist.xml: holds 2 items, allowed: 100 to 555 (English queries among the 555",
    ):
        assert wanted in str(caught.value)
    assert not (tmp_path / "a.zip").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    text = "".join(f"yes-{n:08x}_nohash_0.wav yes\n" for n in range(3081))
    checked = find("KS").predictions[0].check({"": text.encode()})
    assert (checked.items, checked.faults) == (3081, ())


@pytest.mark.parametrize(
    ("task", "content", "message"),
    [
        ("KS", b"", "is empty"),
        ("KS", b"a yes\nb\n", "line 2: no label"),
        ("KS", b"a\tyes\n", "line 1: a tab, allowed: a space"),
        ("KS", b"a yes\nb no\na no\n", "line 3: a is there twice, with another value"),
        ("KS", b"a yes\nb \xff\n", "is not UTF-8 text (byte 8)"),
        ("KS", b"a yes\x00\n", "control character '\\x00'"),
        ("ASV", b"a 0.5\nb high\n", "line 2: score is 'high', allowed: NAME NUMBER"),
        ("ASV", b"a nan\n", "score is not finite"),
        ("IC", b"a.wav,up,none\n", "line 1: allowed: NAME,ACTION,OBJECT,LOCATION"),
        ("SE", b"pesq 2.5\n", "no line for stoi"),
        ("SE", b"pesq 2.5\nstoi 93.9\n", "stoi is 9390.0, allowed: a number in %, 0 to 100"),
        ("SE", b"pesq 2.5 dB\n", "line 1: allowed: METRIC NUMBER"),
        ("SS", b"si_sdr good\n", "no number for si_sdr"),
        ("ST", b"utt_id\thyp\nu1\tja\n", "no column ref"),
        ("ST", b"utt_id\thyp\tref\n", "holds no translation"),
        ("ST", b"utt_id\thyp\tref\nu1\tja\n", "1 lines lack a column"),
        ("QbE", b"<stdlist/>", "holds no trial"),
        ("QbE", UNEVEN.encode(), "query q1 has fewer documents"),
    ],
)
def test_formats_that_the_site_would_not_score(task, content, message):
    checked = find(task).predictions[0].check({"": content}, any_count=True)
    assert message in "; ".join(checked.faults)


def test_gaps_are_named(run, tmp_path):
    for name in ("er/fold3/test_fold3_predict.txt", "qbe/benchmark.stdlist.xml"):
        (run / name).unlink()
    report = archive.build(run, tmp_path / "a.zip", checks=ANY)
    assert "ER: er_fold3_public/predict.txt; it is scored only with all 5 parts" in report.gaps
    assert "QbE" in report.gaps
    (run / "sd/frame_shift").unlink()
    with pytest.raises(ResultError, match="SD: sd_public/frame_shift is missing"):
        archive.build(run, tmp_path / "b.zip", checks=ANY)
    with pytest.raises(ResultError, match=r"holds no prediction, looked for pr/test-hyp\.ark"):
        archive.build(tmp_path / "nothing", tmp_path / "b.zip")
    with pytest.raises(ResultError, match=r"names that end in \.zip only"):
        archive.build(run, tmp_path / "a.tar")


def test_nothing_is_overwritten(run, tmp_path):
    out = tmp_path / "a.zip"
    archive.build(run, out, checks=ANY)
    before = out.read_bytes()
    with pytest.raises(ResultError, match="exists already"):
        archive.build(run, out, checks=ANY)
    (run / "ks/test_predict.txt").write_text("broken\n")
    with pytest.raises(ResultError, match="no label"):
        archive.build(run, out, checks=ANY, overwrite=True)
    assert out.read_bytes() == before


def packed(path, entries, mode=0o644, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as made:
        for name, content in entries:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = compression
            made.writestr(info, content)
    return path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../predict/ks_public/predict.txt", "leads out of the archive"),
        ("/etc/passwd", "leads out of the archive"),
        ("predict/../../x", "leads out of the archive"),
        ("C:/x", "leads out of the archive"),
        ("predict\\ks_public\\predict.txt", "leads out of the archive"),
    ],
)
def test_archives_with_path_tricks_are_refused(name, message, tmp_path):
    with pytest.raises(ResultError, match=message):
        archive.check(packed(tmp_path / "a.zip", [(name, "a yes\n")]), ANY)


def test_dangerous_archives_are_refused(tmp_path, monkeypatch):
    name = "predict/ks_public/predict.txt"
    with pytest.raises(ResultError, match="is a link or a special file"):
        archive.check(packed(tmp_path / "link.zip", [(name, "/etc/passwd")], stat.S_IFLNK | 0o777))
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = packed(tmp_path / "twice.zip", [(name, "a yes\n"), (name, "a no\n")])
    with pytest.raises(ResultError, match="is there twice"):
        archive.check(path)
    path = packed(tmp_path / "plain.zip", [(name, "a yes\n")])
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "locked.zip").write_bytes(content)
    with pytest.raises(ResultError, match="is encrypted"):
        archive.check(tmp_path / "locked.zip")
    path = packed(tmp_path / "stored.zip", [(name, "a yes\n")], compression=zipfile.ZIP_STORED)
    (tmp_path / "bad.zip").write_bytes(path.read_bytes().replace(b"a yes", b"a no!"))
    (tmp_path / "text.zip").write_text("no zip")
    for damaged in ("bad.zip", "text.zip"):
        with pytest.raises(ResultError, match="not readable as zip"):
            archive.check(tmp_path / damaged, ANY)
    with pytest.raises(ResultError, match=r"nothing\.zip: no such file"):
        archive.check(tmp_path / "nothing.zip", ANY)
    big = packed(tmp_path / "big.zip", [(name, "a yes\n" * 1000)])
    assert len(big.read_bytes()) < 1000
    monkeypatch.setattr(archive, "MAX_MEMBER", 1000)
    with pytest.raises(ResultError, match="is 0 MiB, allowed: 512 MiB"):
        archive.check(big)
    monkeypatch.setattr(archive, "MAX_TOTAL", 1000)
    with pytest.raises(ResultError, match="holds 1 files of"):
        archive.check(big)


def test_check_command(run, tmp_path, capsys, monkeypatch):
    out = tmp_path / "predict.zip"
    archive.build(run, out, checks=ANY)
    assert main(["superb", "check", str(out), "--any-count"]) == 0
    assert "ok       er_fold1_public/predict.txt: 2 items" in capsys.readouterr().out
    assert main(["superb", "check", str(out)]) == 2
    assert "fault    ks_public/predict.txt: holds 2 items" in capsys.readouterr().out
    other = packed(tmp_path / "x.zip", [("predict/notes.txt", "hello"), ("__MACOSX/x", "")])
    assert main(["superb", "check", str(other)]) == 2
    shown = capsys.readouterr()
    assert "holds nothing that the site scores" in shown.err
    assert "2 files that the site ignores" in shown.out
    assert main(["superb", "check", str(out.rename(tmp_path / "predict.dat")), "--any-count"]) == 2
    assert "names that end in .zip only" in capsys.readouterr().err
    monkeypatch.setattr(archive, "MAX_ARCHIVE", 100)
    assert main(["superb", "check", str(other)]) == 2
    assert "allowed: less than 50 MiB" in capsys.readouterr().err


def test_submit_command_fills_the_form(run, tmp_path, capsys):
    model = tiny("hubert")
    save_model(model, tmp_path / "model")
    command = ["superb", "submit", str(run), "--out", str(tmp_path / "predict.zip"), "--any-count"]
    command += ["--checkpoint", str(tmp_path / "model"), "--name", "a small HuBERT, as a test"]
    assert main([*command, "--url", "https://github.com/someone/model"]) == 0
    shown = capsys.readouterr().out
    buckets = superb_macs(model.config)
    for line in (
        "modelURL        https://github.com/someone/model",
        "stride          20",
        f"macsShort       {buckets['short']}",
        f"macsLonger      {buckets['longer']}",
        f"macs            {sum(buckets.values())}",
        f"paramShared     {parameters(model.config)}",
        "corpus          (to fill in)",
        "track           constrained",
        "note: the page's form takes 20 characters of submitName, the server 60",
        "still to fill in: modelDesc, corpus",
    ):
        assert line in shown
    assert main([*command, "--overwrite", "--url", "https://example.org/x"]) == 2
    assert "modelURL is 'https://example.org/x'" in capsys.readouterr().err


def test_the_form_refuses_what_the_site_refuses():
    with pytest.raises(ConfigError) as caught:
        Form(
            submitName="x" * 61,
            modelDesc="x" * 301,
            stride=101,
            macs=-1,
            track="open",
            modelURL="github.com/x",
        )
    for fault in (
        "submitName has 61",
        "modelDesc has 301",
        "stride is 101",
        "macs is -1",
        "track is 'open'",
        "modelURL",
    ):
        assert fault in str(caught.value)
    assert Form(submitName="x", modelDesc="y", corpus="z").missing() == [
        "stride", "macs", "macsShort", "macsMedium", "macsLong", "macsLonger", "paramShared",
    ]  # fmt: skip


def test_hubert_bases_macs_are_the_leaderboards(tmp_path, monkeypatch):
    from s3prl_dphubert.checkpoints import load
    from s3prl_dphubert.model import ModelConfig

    class Base:
        config = ModelConfig()

    monkeypatch.setattr(load, "load_model", lambda path: Base)
    fields = fields_of_checkpoint(tmp_path)
    assert fields["macs"] == 1_669_156_022_848
    assert fields["macsMedium"] == 261_280_279_552
    monkeypatch.setattr(Base, "config", ModelConfig(conv_strides=(5, 2, 2, 2, 1, 1, 1)))
    with pytest.raises(ConfigError, match="its stride is 40 samples, allowed: whole ms"):
        fields_of_checkpoint(tmp_path)
