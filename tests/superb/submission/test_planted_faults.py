"""Faults planted in a submission of full size, one at a time; each has to be found and placed."""

from __future__ import annotations

from collections import Counter

import pytest

pytest.importorskip("h5py", reason="s3prl's diarization writes HDF5")

from s3prl_dphubert.superb.submission.archive import SubmissionChecks, check
from s3prl_dphubert.superb.tasks import core_tasks
from tests.helpers import full_submission as full

pytestmark = pytest.mark.slow

PR, ASR, LM = (f"{name}_public/predict.ark" for name in ("pr", "asr", "asr_lm"))
KS, SID, ASV = (f"{name}_public/predict.txt" for name in ("ks", "sid", "sv"))
ER, IC, SF = "er_fold1_public/predict.txt", "ic_public/predict.csv", "sf_public/predict.ark"
QBE, SD, SHIFT = "qbe_public/benchmark.stdlist.xml", "sd_public/scoring/predictions", "sd_public/frame_shift"
TEXTS = (PR, ASR, LM, KS, SID, ASV, ER, IC, SF)
RIGHT = {
    PR: "AA1", ASR: "HELLO", LM: "HELLO", KS: "yes", SID: "id10001",
    ASV: "0.5", ER: "neu", IC: "none,none,none", SF: "GO",
}  # fmt: skip


def named(entry, name):
    """A line of that name, with a value that is allowed."""
    return f"{name}{',' if entry == IC else ' '}{RIGHT[entry]}"


def value_faults():
    """Entry, value of the third line, and the fault that follows ``line 3: ``."""
    yield from (
        (KS, value, f"label is {value!r}, allowed: yes, no") for value in ("banana", "3", "Yes", "silence")
    )
    for value in ("speaker7", "id99999", "id10000", "id11252", "7"):
        yield SID, value, f"speaker is {value!r}, allowed: one of 1251"
    yield from (
        (ER, value, f"label is {value!r}, allowed: neu, hap, ang, sad") for value in ("exc", "0", "Neu")
    )
    yield IC, "fly,none,none", "action is 'fly', allowed: activate"
    yield IC, "increase,moon,none", "object is 'moon', allowed: none, Chinese"
    yield IC, "increase,heat,garden", "location is 'garden', allowed: none, bedroom"
    yield IC, "increase,heat,none,none", "allowed: NAME,ACTION,OBJECT,LOCATION"
    yield PR, "HELLO WORLD", "phoneme 'HELLO' is unknown, allowed: 71 phonemes"
    yield PR, "AA1 AA9", "phoneme 'AA9' is unknown"
    yield PR, "aa1", "phoneme 'aa1' is unknown"
    for entry in (ASR, LM):
        yield entry, "hello world", "has the character 'h', allowed: A-Z' and spaces"
        yield entry, "HELLO, WORLD", "has the character ','"
        yield entry, "HELLO 5", "has the character '5'"
        yield entry, "HELLO|WORLD", "has the character '|'"
    yield SF, "PLAY B-singer MO E-singer", "slot 'singer' is unknown, allowed: the 39 slots of SNIPS"
    yield SF, "PLAY E-Artist", "slot 'Artist' is unknown"
    yield SF, "play mo", "word 'play', allowed: A-Z, ' and the tags"
    yield ASV, "high", "score is 'high', allowed: NAME NUMBER"


VALUES = list(value_faults())
HEADERS = {entry: "file,action,object,location" if entry == IC else "filename label" for entry in TEXTS}
HEADERS[ASV] = "trial 1"
OTHERS = {  # names that are of the right kind, and of another set
    PR: "1998-15444-0000", ASR: "84-121123-0000", LM: "1998-15444-0000", KS: "bed-00f0204f_nohash_0.wav",
    SID: "id00012-5r0dWxy17C8-00001", ASV: "id10001-5r0dWxy17C8-00001_id10270-5r0dWxy17C8-00002",
    ER: "Ses03F_impro01_F000", IC: "0a3129c0", SF: "Aditi-snips-test-0",
}  # fmt: skip


def faults_of(files, tmp_path, **checks):
    """The faults of a submission of these files."""
    report = check(full.pack(tmp_path / "predict.zip", files), SubmissionChecks(**checks))
    return report, "\n".join(report.faults)


def with_line(entry, number, line):
    """The file of an entry, one line replaced."""
    rows = full.texts()[entry].splitlines()
    rows[number - 1] = line
    return {entry: "\n".join(rows) + "\n"}


def test_a_right_submission_of_full_size_passes(tmp_path):
    report, faults = faults_of({**full.texts(), **full.diarization()}, tmp_path, frame_shift=320)
    assert faults == ""
    assert report.items["sv_public/predict.txt"] == 37_720 and report.items[SD] == 3000
    assert report.gaps == ["SE", "SS", "ST"] and report.notes == []
    checked = [each for task in core_tasks() for each in task.predictions if each.rules]
    assert len(checked) == 15  # all but the frame shift


def test_a_right_submission_passes_beside_the_corpora(tmp_path):
    data = full.lists(tmp_path / "data")
    report, faults = faults_of({**full.texts(), **full.diarization()}, tmp_path, data=data)
    assert faults == "" and len(report.items) == 16


@pytest.mark.parametrize(("entry", "value", "fault"), VALUES)
def test_values_that_are_not_of_the_task(entry, value, fault, tmp_path):
    rows = full.texts()[entry].splitlines()
    name = rows[2].partition("," if entry == IC else " ")[0]
    _, faults = faults_of(with_line(entry, 3, f"{name}{',' if entry == IC else ' '}{value}"), tmp_path)
    assert f"{entry}: line 3: {fault}" in faults


@pytest.mark.parametrize("entry", TEXTS)
def test_header_lines(entry, tmp_path):
    _, faults = faults_of(with_line(entry, 1, HEADERS[entry]), tmp_path)
    assert f"{entry}: line 1: " in faults


@pytest.mark.parametrize("entry", TEXTS)
def test_a_name_that_no_test_set_has(entry, tmp_path):
    _, faults = faults_of(with_line(entry, 7, named(entry, "nobody")), tmp_path)
    assert f"{entry}: line 7: name is 'nobody', allowed: " in faults


@pytest.mark.parametrize("entry", TEXTS)
def test_a_name_of_another_set(entry, tmp_path):
    _, faults = faults_of(with_line(entry, 7, named(entry, OTHERS[entry])), tmp_path)
    assert f"{entry}: line 7: name is {OTHERS[entry]!r}, allowed: " in faults


@pytest.mark.parametrize("entry", TEXTS)
def test_a_byte_order_mark(entry, tmp_path):
    _, faults = faults_of({entry: "\ufeff" + full.texts()[entry]}, tmp_path)
    assert f"{entry}: line 1: begins with a byte order mark" in faults


@pytest.mark.parametrize("entry", [entry for entry in TEXTS if entry != SF])
def test_items_that_are_missing_or_too_many(entry, tmp_path):
    whole = full.texts()[entry]
    for text in (whole.partition("\n")[2], whole + named(entry, "nobody") + "\n"):
        _, faults = faults_of({entry: text}, tmp_path)
        assert f"{entry}: holds {text.count(chr(10))} items, allowed: {whole.count(chr(10))}" in faults


def test_every_fold_takes_its_session_only(tmp_path):
    """Swapped folds of equal size would count right."""
    names = full.dialogue(3, 1085)
    _, faults = faults_of({ER: full.rows(names, ("neu",))}, tmp_path)
    assert f"{ER}: line 1: name is 'Ses03F_script02_1_M000', allowed: Ses01…" in faults
    assert f"{ER}: and 1082 more faults" in faults


def test_a_dialogue_that_the_session_does_not_have(tmp_path):
    _, faults = faults_of(with_line(ER, 7, named(ER, "Ses01F_impro08_M006")), tmp_path)
    assert f"{ER}: line 7: Ses01F_impro08_M006 is in no dialogue of session 1" in faults


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (full.rows(full.sentences(), ("PLAY MO",)), "holds no slot, allowed: B-SLOT words E-SLOT"),
        (full.rows(full.sentences(), ("PLAY B-artist MO",)), "holds no slot"),
        (full.rows(full.sentences()[:10], ("B-year TWO E-year",)), "holds 10 items, allowed: 1400 to 2800"),
        (full.rows(full.sentences()[:2100], ("B-year TWO E-year",)), "holds no utterance by Russell"),
        (full.rows([*full.sentences(), "Emma-snips-test-700"], ("B-year TWO E-year",)), "line 2801: name is"),
    ],
)
def test_slot_filling_without_slots_or_voices(text, fault, tmp_path):
    _, faults = faults_of({SF: text}, tmp_path)
    assert f"{SF}: {fault}" in faults


@pytest.mark.parametrize("entry", [ASR, LM])
def test_letters_instead_of_words(entry, tmp_path):
    _, faults = faults_of({entry: full.rows(full.utterances(), ("H E L L O T H E R E Y O U",))}, tmp_path)
    assert f"{entry}: has single letters for words" in faults


@pytest.mark.parametrize(
    ("queries", "documents", "fault"),
    [
        (full.queries(count=1), full.documents(), "holds 1 items, allowed: 100 to 555"),
        (
            full.queries("dev"),
            full.documents(),
            "query quesst14_dev_0000: name is 'quesst14_dev_0000', allowed: ",
        ),
        (
            full.queries(),
            full.documents(4),
            "query quesst14_eval_0000: has 4 documents, allowed: 2000 to 12492",
        ),
        (full.queries(), [f"doc_{n}" for n in range(2000)], "query quesst14_eval_0000: document is 'doc_0'"),
    ],
)
def test_queries_and_documents_of_another_set(queries, documents, fault, tmp_path):
    _, faults = faults_of({QBE: full.stdlist(queries, documents)}, tmp_path)
    assert f"{QBE}: {fault}" in faults


@pytest.mark.parametrize("speakers", [1, 3])
def test_diarization_of_other_numbers_of_speakers(speakers, tmp_path):
    name = f"{full.recordings()[0]}.h5"
    files = {**full.diarization(), f"{SD}/{name}": full.activity(speakers)}
    _, faults = faults_of(files, tmp_path)
    assert f"{SD}: {name}: number of speakers is '{speakers}', allowed: 2" in faults


@pytest.mark.parametrize("name", ["mix0", "1998-15444-0000_1089-134686-0001", "1089-134686-0001"])
def test_recordings_that_are_no_test_mixtures(name, tmp_path):
    files = dict(full.diarization())
    files[f"{SD}/{name}.h5"] = files.pop(next(iter(files)))
    _, faults = faults_of(files, tmp_path)
    assert f"{SD}: {name}.h5: name is {name!r}, allowed: UTTERANCE_UTTERANCE of test-clean" in faults


def test_another_frame_shift_than_the_upstreams(tmp_path):
    _, faults = faults_of({**full.diarization(), SHIFT: b"160\n"}, tmp_path, frame_shift=320)
    assert f"{SHIFT}: line 1: frame_shift is 160, allowed: 320, the upstream's" in faults


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The corpora's lists."""
    return full.lists(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        (PR, "1089-134686-9999"),
        (ASR, "1089-134686-9999"),
        (LM, "1089-134686-9999"),
        (KS, "yes-ffffffff_nohash_0.wav"),
        (IC, "00000000-0000-0000-0000-000000000000"),
        (ER, "Ses01F_impro01_M999"),
    ],
)
def test_the_corpora_say_which_names_there_are(entry, name, data, tmp_path):
    _, faults = faults_of(with_line(entry, 7, named(entry, name)), tmp_path, data=data)
    assert f"{entry}: line 7: {name} is not in the list of the test set" in faults
    assert f"{entry}: lacks 1 items of the test set, the first: " in faults


def test_the_corpora_say_which_sentences_queries_and_mixtures_there_are(data, tmp_path):
    texts = {
        SF: full.texts()[SF].partition("\n")[2],
        QBE: full.stdlist(full.queries(count=101)[1:], full.documents()),
    }
    name = f"{full.utterances()[0]}_{full.utterances()[500]}"
    mixtures = {**full.diarization(), f"{SD}/{name}.h5": full.activity()}
    _, faults = faults_of({**texts, **mixtures}, tmp_path, data=data)
    assert f"{SF}: lacks 1 items of the test set, the first: Brian-snips-test-0" in faults
    assert f"{QBE}: query quesst14_eval_0100: quesst14_eval_0100 is not in the list" in faults
    assert f"{QBE}: lacks 1 items of the test set, the first: quesst14_eval_0000" in faults
    assert f"{SD}: {name}.h5: {name} is not in the list of the test set" in faults
    _, faults = faults_of({QBE: full.stdlist(full.queries(), full.documents(2001))}, tmp_path, data=data)
    assert f"{QBE}: query quesst14_eval_0000: has 2001 documents, allowed: the 2000 in English" in faults


@pytest.mark.parametrize(("entry", "names"), [(SID, full.speakers), (ASV, full.trials)])
def test_published_lists_in_the_cache_say_which_names_there_are(entry, names, tmp_path, monkeypatch):
    from s3prl_dphubert.superb.prepare import voxceleb

    lines = [name.replace("-id", " id") for name in names()]
    paths = [path(name) for name in lines]
    text = "".join(f"{'3' if entry == SID else '1'} {line}\n" for line in paths)
    listed, attribute = (
        ("veri_test_class.txt", "SPLIT") if entry == SID else ("voxceleb1_test_v2.txt", "PAIRS")
    )
    (tmp_path / listed).write_text(text)
    public = getattr(voxceleb, attribute)
    monkeypatch.setattr(type(public), "local", lambda self, data: tmp_path / listed)
    assert faults_of({entry: full.texts()[entry]}, tmp_path)[1] == ""
    strange = names()[0].replace("00000", "99999")
    _, faults = faults_of(with_line(entry, 1, named(entry, strange)), tmp_path)
    assert f"{entry}: line 1: {strange} is not in the list of the test set" in faults


def path(name):
    """The line of a list for a name of utterances, each ``SPEAKER-VIDEO-NUMBER``."""
    first, second = name[:25], name[26:]
    return " ".join(f"{part[:7]}/{part[8:19]}/{part[20:]}.wav" for part in (first, second) if part)


def test_how_many_faults_are_planted():
    own = Counter(entry for entry, _, _ in VALUES)
    assert len(VALUES) == 31 and set(own) == set(TEXTS)
    assert set(HEADERS) == set(OTHERS) == set(RIGHT) == set(TEXTS) and len(TEXTS) == 9
