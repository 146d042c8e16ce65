"""Whatever is read is bounded, damage is one error that names the file, and each format has one reader."""

from __future__ import annotations

import gzip
import io
import json
import zipfile

import pytest

from s3prl_dphubert.errors import CheckpointError, ConfigError, DataError, ResultError
from s3prl_dphubert.utils import readers
from s3prl_dphubert.utils.config_io import read_yaml
from tests.helpers.calls import package_with, places
from tests.helpers.imports import PACKAGE

FORMATS = (
    r"json\.loads?|yaml\.\w*load\w*|csv\.(reader|DictReader)|xml\.parsers\.expat\.ParserCreate",
    r"gzip\.open|zipfile\.(ZipFile|is_zipfile)|tarfile\.open",
    r"h5py\.File|numpy\.load|torch\.load|pickle\.(loads?|Unpickler)",
    r"safetensors\.(safe_open|torch\.load_file)",
)
"""Functions that parse."""

READERS = {
    "utils/readers.py": "JSON, YAML, tables, zip",
    "checkpoints/directory.py": "safetensors",
    "model/state_dict.py": "files of torch.save that hold tensors only",
    "data/shards.py": "tar shards of audio",
    "free_superb/sources/deb.py": "Debian packages, of known SHA-256",
    "superb/metrics/der.py": "HDF5 of diarization",
    "superb/metrics/mtwv.py": "XML of QUESST",
}
"""Module -> what it alone reads; the unpickler subclasses ``pickle.Unpickler``, which is no call."""

EXCEPTIONS = {
    "bench/subjects.py": "a file that this benchmark has written a moment ago",
    "bench/turn_log.py": "plain values of its own setting, by way of JSON",
    "compat/checkpoint_writes.py": "asks whether s3prl can read what it has just written",
    "free_superb/sources/espeak.py": "requests of the process that has started it",
    "superb/run/experiment.py": "plain values of its own record, by way of JSON",
    "superb/run/workers/fork_server.py": "requests of the process that has started it",
    "superb/run/workers/jobs.py": "arguments from the process that has started it",
    "superb/run/workers/launcher.py": "answers of the process that it has started",
    "superb/submission/archive.py": "writes a zip",
    "training/distributed.py": "values of process 0 of the same training",
}


def outside(package=PACKAGE):
    """Modules that parse beside the readers; the making of hubert_mini reads its own files of one sitting."""
    known = READERS.keys() | EXCEPTIONS.keys()
    return {name for name in places(FORMATS, package) if name not in known and "hubert_mini/" not in name}


def test_files_are_parsed_in_one_place_for_each_format():
    assert outside() == set()
    assert places(FORMATS).keys() >= READERS.keys() | EXCEPTIONS.keys()  # nothing is listed in vain


@pytest.mark.parametrize(
    "statement",
    [
        "import json\njson.loads('')",
        "from yaml import safe_load as get\nget('')",
        "import numpy as np\nnp.load('')",
    ],
)
def test_a_reader_beside_them_is_found(tmp_path, statement):
    assert outside(package_with(statement, tmp_path)) - outside() == {"data/audio.py"}


DAMAGED_JSON = {
    "empty": b"",
    "cut": b'{"a": [1,',
    "not UTF-8": b'{"a": "\xff"}',
    "deep": b"[" * 100_000,
    "deep and closed": b'{"a":' * 150 + b"1" + b"}" * 150,
    "digits": b'{"a": ' + b"9" * 5000 + b"}",
    "a list": b"[1]",
    "large": b" " * (readers.LARGEST_JSON + 1),
    "with a zero": b"\0",
    "of a UTF-16 file": '{"a": 1}'.encode("utf-16"),
}


@pytest.mark.parametrize("name", DAMAGED_JSON)
def test_damaged_json_is_one_error_that_names_the_file(tmp_path, name):
    path = tmp_path / "a.json"
    path.write_bytes(DAMAGED_JSON[name])
    if name == "of a UTF-16 file":  # which JSON allowed once, and Python finds out
        assert readers.read_json(path, ResultError) == {"a": 1}
        return
    with pytest.raises(ResultError, match=r"a\.json: (not readable as JSON \(.+\)|holds list)"):
        readers.read_json(path, ResultError)
    assert readers.read_record(path) == {}


def test_json_that_is_missing_or_of_a_model_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"a\.json: no such file"):
        readers.read_json(tmp_path / "a.json", ConfigError)
    with pytest.raises(ConfigError, match=r"cannot be read \(Is a directory\)"):
        readers.read_json(tmp_path, ConfigError)
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"^user/repo: b\.json: not readable as JSON"):
        readers.read_json(tmp_path / "b.json", CheckpointError, source="user/repo")


@pytest.mark.parametrize("content", [None, b"", b"{", b"[1]", b"\xff"])
def test_a_record_that_holds_no_mapping_is_empty(tmp_path, content):
    path = tmp_path / "x.json"
    if content is not None:
        path.write_bytes(content)
    assert readers.read_record(path) == {}
    path.write_text('{"a": [1, null]}')
    assert readers.read_record(path) == {"a": [1, None]}


def test_damaged_lines_of_a_log_are_left_out(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"a": 1}\n[2]\n{"b":\n\xff\n' + b"[" * 5000 + b'\n{"c": 3}\n{"d"')
    assert list(readers.read_json_lines(path)) == [{"a": 1}, {"c": 3}]


@pytest.mark.parametrize(
    "text",
    [
        "a: [",
        "a: &a [*a]",
        "a: 2020-99-99",
        "? {a: [1]}\n: 1",
        "[" * 500 + "]" * 500,
        "a: !!python/object/apply:os.system [true]",
        "a: " + "9" * 5000,
        "\0",
        "!!binary x",
        "- " * 200 + "1",
    ],
)
def test_damaged_yaml_is_one_error_that_names_the_file(tmp_path, text):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"a\.yaml: not readable as YAML \(.+\)") as caught:
        read_yaml(path)
    assert "\n" not in str(caught.value)


def test_tables_are_read_as_they_are_written(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_bytes('path\tsentence\tmore\r\na.mp3\t"Hi"\u2028there\t1\r\n\r\nb.mp3\tx\n'.encode())
    rows = [
        {"path": "a.mp3", "sentence": '"Hi"\u2028there', "more": "1"},
        {"path": "b.mp3", "sentence": "x", "more": ""},
    ]
    assert list(readers.read_table(path, ("path", "sentence"))) == rows
    packed = tmp_path / "a.tsv.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert list(readers.read_table(packed, ("path", "sentence"))) == rows
    (tmp_path / "a.csv").write_text('a,b\n"x,\n""y""",2\n')
    assert list(readers.read_table(tmp_path / "a.csv", ("a", "b"), separator=",", quoted=True)) == [
        {"a": 'x,\n"y"', "b": "2"}
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no column path"),
        (b"a\tb\n1\t2\n", "has no column path"),
        (b"a\tpath\n1\n", r"row 2 has 1 cells, expected 2"),
        (b"path\n\xff\n", r"not readable as a table \(not UTF-8 at byte 5\)"),
        (b"path\n" + b"x" * (readers.LONGEST_LINE + 1), r"line 2 has more than 1,048,576 characters"),
        (b"path\n" + b"\0" * 10, None),
    ],
)
def test_damaged_tables_are_one_error_that_names_the_row(tmp_path, content, message):
    path = tmp_path / "a.tsv"
    path.write_bytes(content)
    if message is None:
        assert list(readers.read_table(path, ("path",))) == [{"path": "\0" * 10}]
        return
    with pytest.raises(DataError, match=rf"a\.tsv: .*{message}"):
        list(readers.read_table(path, ("path",)))


def test_the_number_of_lines_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "MOST_LINES", 3)
    path = tmp_path / "a.txt"
    path.write_text("a\n" * 3)
    assert readers.read_lines(path) == ["a"] * 3
    path.write_text("a\n" * 4)
    with pytest.raises(DataError, match=r"a\.txt: not readable as text \(more than 3 lines"):
        readers.read_lines(path)


def test_a_cut_gzip_and_a_field_without_end_are_errors(tmp_path):
    packed = tmp_path / "a.tsv.gz"
    packed.write_bytes(gzip.compress(b"path\n" + b"x\n" * 10_000)[:-20])
    with pytest.raises(DataError, match=r"a\.tsv\.gz: not readable as a table"):
        list(readers.read_table(packed, ("path",)))
    table = tmp_path / "a.csv"
    table.write_text('a\n"' + "x\n" * 200_000)
    with pytest.raises(DataError, match=r"a\.csv: not readable as a table \(Error: field larger"):
        list(readers.read_table(table, ("a",), separator=",", quoted=True))


def test_words_of_lines(tmp_path):
    path = tmp_path / "wav.scp"
    path.write_text("a  /x/my file.wav\n\nb /y.wav\n")
    assert readers.read_words(path, least=2, most=2) == [["a", "/x/my file.wav"], ["b", "/y.wav"]]
    path.write_text("a /x.wav\nb\n")
    with pytest.raises(DataError, match=r"wav\.scp: 'b' has 1 words, expected 2 or more"):
        readers.read_words(path, least=2)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RecursionError(), "nested too deep"),
        (IndexError("list index out of range"), "IndexError: list index out of range"),
        (OverflowError("too large"), "OverflowError: too large"),
        (MemoryError(), "needs more memory than there is"),
        (KeyError("frames"), "has no 'frames'"),
        (AttributeError("x"), "AttributeError: x"),
        (ValueError("x" * 10_000), "x" * 200),
    ],
    ids=lambda value: type(value).__name__,
)
def test_any_error_of_a_parser_is_the_products(error, message):
    with pytest.raises(CheckpointError) as caught, readers.reading("a.bin", CheckpointError, "a model"):
        raise error
    assert str(caught.value) == f"a.bin: not readable as a model ({message})"
    assert caught.value.__cause__ is error


def test_interrupts_pass():
    with pytest.raises(KeyboardInterrupt), readers.reading("a.bin", CheckpointError, "a model"):
        raise KeyboardInterrupt


def test_damage_of_a_zip_shows_as_late_as_it_is_read(tmp_path):
    path = tmp_path / "a.zip"
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a", json.dumps(list(range(100))))
    data = bytearray(file.getvalue())
    data[60] ^= 1
    path.write_bytes(data)
    assert readers.is_zip(path)
    late = pytest.raises(ResultError, match=r"a\.zip: not readable as zip \(BadZipFile: Bad CRC")
    with late, readers.open_zip(path, ResultError) as archive:
        archive.read("a")
    path.write_bytes(data[:-30])
    assert not readers.is_zip(path)
    with (
        pytest.raises(ResultError, match=r"a\.zip: not readable as zip"),
        readers.open_zip(path, ResultError),
    ):
        pass


@pytest.mark.parametrize("text", ["1", "-0.5", "+1e-05", "1.", ".5", "1E3", "nan", "-inf"])
def test_decimal_numbers_are_read(text):
    assert str(readers.parse_number(text)) == str(float(text))


@pytest.mark.parametrize("text", ["1_0", "٣", "１", " 1", "1\n", "0x1p3", "1,5", "", ".", "e5", "in", "1e"])
def test_numbers_that_only_python_reads_are_none(text):
    with pytest.raises(ValueError, match="is no decimal number"):
        readers.parse_number(text)
