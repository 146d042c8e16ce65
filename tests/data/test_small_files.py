"""Small audio files and manifest entries that ask for much: gigabytes of memory, minutes, or for ever."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile

import numpy as np
import pytest
import soundfile

from s3prl_dphubert.data.manifest import HEADER, Manifest, check_headers, scan
from s3prl_dphubert.data.validate import check
from tests.helpers.speech import tone

USES = """
import json, sys, time
from s3prl_dphubert.data.audio import probe, read
from s3prl_dphubert.data.manifest import Entry, Manifest, check_headers, scan
from s3prl_dphubert.data.validate import check
from s3prl_dphubert.errors import DataError
path = sys.argv[1]
listed = Manifest((Entry(path, 16_000),))
uses = {
    "probe": lambda: probe(path),
    "read": lambda: read(path),
    "crop": lambda: read(path, 160_000, 16_000),
    "validate": lambda: check(listed),
    "headers": lambda: check_headers(listed, 1.0),
    "manifest --check": lambda: scan([path], check=True),
}
seconds = {}
for name, use in uses.items():
    began = time.process_time()
    try:
        use()
    except DataError as error:
        assert len(str(error).splitlines()) == 1 and path.partition("#")[0] in str(error), error
    seconds[name] = time.process_time() - began
status = open("/proc/self/status").read()  # ru_maxrss would count the process that started this one
print(json.dumps([seconds, int(status.partition("VmHWM:")[2].split()[0]) / 2**20]))
"""


def silence(path, hours, channels, rate):
    with soundfile.SoundFile(path, "w", rate, channels, "PCM_16") as file:
        for _ in range(36 * hours):
            file.write(np.zeros((100 * rate, channels), np.int16))
    return path


def eight_channels(folder):
    return silence(folder / "a.flac", 2, 8, 16_000)


def other_rate(folder):
    return silence(folder / "a.flac", 5, 4, 24_000)


def without_length(folder):
    path = silence(folder / "a.flac", 8, 1, 16_000)
    data = bytearray(path.read_bytes())
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    path.write_bytes(data)
    return path


def upsampled(folder):
    return silence(folder / "a.flac", 23, 1, 1000)


def device(folder):
    return "file:///dev/zero"


def sparse_shard(folder):
    path = folder / "a.tar"
    info = tarfile.TarInfo("a.wav")
    info.size = 3 * 2**30
    path.write_bytes(info.tobuf())
    with open(path, "ab") as file:
        file.truncate(512 + info.size + 10 * 512)
    return path


def sparse_member(folder):
    return f"{sparse_shard(folder)}#512+{3 * 2**30}/a.wav"


def sparse_wave(folder):
    path = folder / "a.wav"
    soundfile.write(path, tone(0.1), 16_000)
    data = bytearray(path.read_bytes())
    data[40:44] = (10**9).to_bytes(4, "little")
    path.write_bytes(data)
    with open(path, "ab") as file:
        file.truncate(10**9 + 44)
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [eight_channels, other_rate, without_length, upsampled, device, sparse_shard, sparse_member, sparse_wave],
)
def test_small_files_take_neither_much_memory_nor_much_time(tmp_path, make):
    path = make(tmp_path)
    command = [sys.executable, "-c", USES, str(path)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    seconds, gigabytes = json.loads(done.stdout.splitlines()[-1])
    assert gigabytes < 2
    assert max(seconds.values()) < 20, seconds


def test_named_pipes_are_passed_over_or_refused(tmp_path):
    soundfile.write(tmp_path / "good.wav", tone(0.5), 16_000)
    for name in ("a.wav", "a.tar"):
        os.mkfifo(tmp_path / name)
    entries = scan([tmp_path])[0][""].entries
    assert [entry.path for entry in entries] == [str(tmp_path / "good.wav")]
    pipe = tmp_path / "a.wav"
    _, skipped = scan([pipe, tmp_path / "a.tar", tmp_path / "good.wav"], check=True)
    assert [item.reason for item in skipped] == ["unreadable (not a regular file)"] * 2
    (tmp_path / "x.tsv").write_text(f"{HEADER}\n{pipe}\t16000\n{tmp_path}/a.tar#512+100/a.wav\t16000\n")
    manifest = Manifest.load(tmp_path / "x.tsv")
    assert len(check_headers(manifest, 1.0)) == len(check(manifest).bad) == 2
