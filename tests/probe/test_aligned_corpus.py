import gzip

import numpy as np
import pytest

from s3prl_dphubert.errors import DataError
from s3prl_dphubert.probe.aligned_corpus import AlignedCorpus, AlignedUtterance, Segment, segments_at

HEAD = "path\tspeaker\tsplit\twords\tphones\n"
LINE = "a/1.flac\tann\ttrain\tYES:10:30 NO:45:20\tY:10:10 EH:20:20\n"


@pytest.mark.parametrize("name", ["aligned.tsv", "aligned.tsv.gz", "other.tsv"])
def test_a_table_comes_back_as_it_was_written(tmp_path, name):
    corpus = AlignedCorpus(
        "x",
        (
            AlignedUtterance(tmp_path / "a/1.flac", "ann", "train", (Segment("A:B", 0.1, 0.25),)),
            AlignedUtterance(tmp_path / "2.flac", "bob", "test", (), (Segment("SIL", 0, 1.5),)),
        ),
    )
    corpus.write(tmp_path / name)
    again = AlignedCorpus.read(tmp_path if name.startswith("aligned") else tmp_path / name)
    assert again.utterances == corpus.utterances
    assert again.sha256 == corpus.sha256
    assert (again.speakers, again.unheard) == (("ann", "bob"), ("bob",))
    if name.endswith(".gz"):
        assert gzip.decompress((tmp_path / name).read_bytes()).startswith(b"path\t")


def test_columns_may_have_any_order_and_others_beside_them(tmp_path):
    (tmp_path / "t.tsv").write_text(
        "speaker\tnote\tpath\tphones\twords\tsplit\nann\t?\ta.wav\t\tYES:10:30\ttrain\n"
    )
    (utterance,) = AlignedCorpus.read(tmp_path / "t.tsv").utterances
    assert utterance == AlignedUtterance(tmp_path / "a.wav", "ann", "train", (Segment("YES", 0.1, 0.4),))


def test_the_digest_depends_on_times_but_not_on_the_folder(tmp_path):
    texts = {"one": HEAD + LINE, "two": HEAD + LINE, "three": HEAD + LINE.replace("YES:10:30", "YES:10:31")}
    digests = {}
    for name, text in texts.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "aligned.tsv").write_text(text)
        digests[name] = AlignedCorpus.read(tmp_path / name).sha256
    assert digests["one"] == digests["two"] != digests["three"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path\tspeaker\n", "has no column split, words, phones"),
        (HEAD, "no recordings"),
        (HEAD + "a\tann\ttrain\n", "row 2 has 3 cells, expected 5"),
        (HEAD + LINE.replace("ann", ""), "line 2: speaker is empty"),
        (HEAD + LINE.replace("train", "validation"), "'validation', allowed: train, dev, test"),
        (
            HEAD + LINE.replace("YES:10:30", "YES:10"),
            "line 2: words has 'YES:10', allowed: LABEL:start:duration",
        ),
        (HEAD + LINE.replace("EH:20:20", "EH:-2:20"), "line 2: phones has 'EH:-2:20'"),
        (HEAD + LINE + LINE, "there twice"),
        (HEAD + LINE + LINE.replace("1.flac", "2.flac").replace("train", "dev"), "'ann' is in train and dev"),
    ],
)
def test_a_wrong_table_is_refused_with_its_line_and_field(tmp_path, text, message):
    path = tmp_path / "t.tsv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        AlignedCorpus.read(path)


def test_missing_and_damaged_tables_are_refused(tmp_path):
    with pytest.raises(DataError, match="no such table, and no folder with aligned"):
        AlignedCorpus.read(tmp_path)
    (tmp_path / "t.tsv.gz").write_bytes(b"no gzip")
    with pytest.raises(DataError, match="not readable as a table"):
        AlignedCorpus.read(tmp_path / "t.tsv.gz")
    (tmp_path / "below").mkdir()
    outside = AlignedCorpus("x", (AlignedUtterance(tmp_path / "1.flac", "a", "dev"),))
    with pytest.raises(DataError, match="does not lie below"):
        outside.write(tmp_path / "below" / "t.tsv")


def test_segments_are_found_by_the_moment():
    segments = (Segment("A", 0.1, 0.2), Segment("B", 0.2, 0.3), Segment("C", 0.25, 0.4))
    moments = np.array([0.0, 0.1, 0.199, 0.2, 0.25, 0.399, 0.4])
    assert segments_at(segments, moments).tolist() == [-1, 0, 0, 1, 2, 2, -1]
    assert segments_at((), moments).tolist() == [-1] * 7
