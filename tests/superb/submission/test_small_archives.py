"""Small archives that ask for much: memory, time, or files of the machine that checks them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from s3prl_dphubert.errors import ResultError
from s3prl_dphubert.superb.submission.archive import SubmissionChecks, check

h5py = pytest.importorskip("h5py", reason="s3prl's diarization writes HDF5")

SD = "predict/sd_public/scoring/predictions"
LIMITS = """
import json, sys, time
from pathlib import Path
from s3prl_dphubert.errors import ResultError
from s3prl_dphubert.superb.submission.archive import check
seconds = {}
for path in sorted(Path(sys.argv[1]).glob("*.zip")):
    began = time.process_time()
    try:
        check(path)
    except ResultError:
        pass
    seconds[path.name] = time.process_time() - began
status = open("/proc/self/status").read()  # ru_maxrss would count the process that started this one
print(json.dumps([seconds, int(status.partition("VmHWM:")[2].split()[0]) / 2**20]))
"""


def hdf5(path, make):
    """The content of an HDF5 file."""
    with h5py.File(path, "w") as file:
        make(file)
    return path.read_bytes()


def huge_shape(file):
    file.create_dataset("T_hat", shape=(10**10, 2), dtype="f4")


def compressed(file):
    file.create_dataset("T_hat", shape=(3 * 10**8, 2), dtype="f4", compression="gzip")


def huge_chunk(file):
    shape = {"shape": (100, 2), "maxshape": (None, 2), "chunks": (10**8, 2)}
    file.create_dataset("T_hat", dtype="f4", **shape)


def text(file):
    file.create_dataset("T_hat", data=np.array([["a", "b"]], dtype=object), dtype=h5py.string_dtype())


def group(file):
    file.create_group("T_hat")


def external_link(file):
    file["T_hat"] = h5py.ExternalLink("/etc/passwd", "/T_hat")


def soft_link(file):
    file.create_dataset("other", data=np.full((5, 2), 0.5, dtype=np.float32))
    file["T_hat"] = h5py.SoftLink("/other")


def virtual(file):
    layout = h5py.VirtualLayout(shape=(5, 2), dtype="f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "T_hat", shape=(5, 2))
    file.create_virtual_dataset("T_hat", layout)


def archive(path, entries):
    """A compressed archive."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in entries.items():
            made.writestr(name, content)
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (huge_shape, "T_hat is of shape (10000000000, 2), but its file holds less: "),
        (compressed, "T_hat is compressed, allowed: uncompressed data, as s3prl writes"),
        (huge_chunk, "T_hat is of shape (100, 2), but its file holds less"),
        (text, "T_hat is object of shape (1, 2), allowed: (F, speakers) of 0 to 1"),
        (group, "T_hat is a group"),
        (external_link, "T_hat is a link, allowed: a data set of the file itself"),
        (soft_link, "T_hat is a link"),
        (virtual, "T_hat is stored in other files, allowed: data in the file itself"),
    ],
)
def test_hdf5_that_promises_more_than_it_holds(make, message, tmp_path):
    path = archive(tmp_path / "a.zip", {f"{SD}/rec.h5": hdf5(tmp_path / "rec.h5", make)})
    assert any(f"predictions: rec.h5: {message}" in fault for fault in check(path).faults)


def test_hdf5_reads_no_other_files(tmp_path):
    """External storage may name a file of this machine, or a pipe, on which reading would wait for ever."""
    secret, pipe = tmp_path / "secret", tmp_path / "pipe"
    secret.write_bytes(np.full((5, 2), 0.5, dtype=np.float32).tobytes())
    os.mkfifo(pipe)
    for place in (secret, pipe):

        def outside(file, place=place):
            file.create_dataset("T_hat", shape=(5, 2), dtype="f4", external=[(str(place), 0, 40)])

        content = hdf5(tmp_path / "rec.h5", outside)
        path = archive(tmp_path / "a.zip", {f"{SD}/rec.h5": content})
        assert any("rec.h5: T_hat is stored in other files" in fault for fault in check(path).faults)


@pytest.mark.parametrize(
    "alias",
    ["predict/./ks_public/predict.txt", "predict//ks_public/predict.txt", "./predict/ks_public/predict.txt"],
)
def test_other_names_of_the_same_file(alias, tmp_path):
    """Unpacking would write over the file that was checked."""
    path = archive(tmp_path / "a.zip", {"predict/ks_public/predict.txt": "a yes\n", alias: "a no\n"})
    with pytest.raises(
        ResultError, match=r"is another name of 'predict/ks_public/predict\.txt', allowed: the plain"
    ):
        check(path, SubmissionChecks(any_count=True))


@pytest.mark.parametrize(
    ("entry", "content", "message"),
    [
        ("ks_public/predict.txt", b"a b\n" * 2**22, "has 4194304 lines, allowed: at most 200000"),
        ("ks_public/predict.txt", b"a b\n" * 2**23, "is 32.0 MiB, allowed: 16 MiB"),
        (
            "pr_public/predict.ark",
            b"a" + b" b" * 2**22,
            "line 1: has 8388609 characters, allowed: at most 65536",
        ),
        (
            "st_public/predict.tsv",
            b"hyp\tref\n" + b"x" * 200_000,
            "line 2: has 200000 characters, allowed: at most",
        ),
        (
            "qbe_public/benchmark.stdlist.xml",
            b"<a>" * 2**22,
            "has too many elements, allowed: at most 1000000",
        ),
        ("qbe_public/benchmark.stdlist.xml", b"<a>" + b"<b/>" * (2 * 10**6), "has too many elements"),
        ("qbe_public/benchmark.stdlist.xml", b"<a>" + b" " * 2**27, "is 128.0 MiB, allowed: 64 MiB"),
        ("sd_public/scoring/predictions/rec.h5", b"\0" * 2**20, "rec.h5: is 1.0 MiB, allowed: 0.25 MiB"),
        ("sd_public/frame_shift", b"1" * 10**6, "frame_shift holds '1111111111"),
    ],
)
def test_content_that_takes_long(entry, content, message, tmp_path):
    path = archive(tmp_path / "a.zip", {f"predict/{entry}": content})
    assert path.stat().st_size < 10**6
    assert any(message in fault for fault in check(path).faults)


def test_too_many_recordings(tmp_path):
    content = hdf5(tmp_path / "rec.h5", huge_shape)
    path = archive(tmp_path / "a.zip", {f"{SD}/{number}.h5": content for number in range(6001)})
    assert any("holds 6001 recordings, allowed: at most 6000" in fault for fault in check(path).faults)


@pytest.mark.slow
def test_small_archives_take_little_time_and_memory(tmp_path):
    """All of this at once: less than 20 s of a core each, and less than 2 GB for all of them."""
    plain = hdf5(
        tmp_path / "rec.h5", lambda file: file.create_dataset("T_hat", data=np.zeros((30_000, 2), "f4"))
    )
    archive(tmp_path / "recordings.zip", {f"{SD}/{number}.h5": plain for number in range(6000)})
    names = b"".join(b"name-%07d value\n" % number for number in range(190_000))
    texts = ("pr", "asr", "asr_lm", "sf"), ("ks", "sid", "sv", *(f"er_fold{n}" for n in range(1, 6)))
    entries = {f"predict/{task}_public/predict.ark": names for task in texts[0]}
    entries |= {f"predict/{task}_public/predict.txt": names for task in texts[1]}
    archive(tmp_path / "lines.zip", entries)
    words = b"".join(b"%d " % n + b"a " * 32_000 + b"\n" for n in range(255))
    archive(tmp_path / "words.zip", {name: words for name in entries})
    tags = b"".join(b"Emma-snips-test-%d " % n + b"B-artist " * 7000 + b"\n" for n in range(250))
    archive(tmp_path / "tags.zip", {"predict/sf_public/predict.ark": tags})
    terms = b"".join(b'<term file="%d" score="1"/>' % number for number in range(2_000_000))
    xml = b'<stdlist><detected_termlist termid="q">' + terms + b"</detected_termlist></stdlist>"
    archive(tmp_path / "terms.zip", {"predict/qbe_public/benchmark.stdlist.xml": xml})
    elements = b"<a>" + b"<b/>" * (16 * 10**6)
    archive(tmp_path / "elements.zip", {"predict/qbe_public/benchmark.stdlist.xml": elements})
    assert all(path.stat().st_size < 10 * 10**6 for path in tmp_path.glob("*.zip"))
    done = subprocess.run(
        [sys.executable, "-c", LIMITS, str(tmp_path)], capture_output=True, text=True, check=True, timeout=200
    )
    seconds, gigabytes = json.loads(done.stdout)
    assert len(seconds) == 6 and max(seconds.values()) < 20, seconds
    assert gigabytes < 2, gigabytes
