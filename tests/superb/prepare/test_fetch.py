"""Lists that lie elsewhere arrive right, once, or the message says where to put them."""

from __future__ import annotations

import hashlib
import logging
import multiprocessing
import os
import signal
import time

import numpy as np
import pytest

from s3prl_dphubert.errors import DataError
from s3prl_dphubert.superb.prepare import fetch
from s3prl_dphubert.superb.prepare.fetch import PublicFile
from tests.helpers.hub_server import Repo, served

CONTENT = np.random.default_rng(0).bytes(300_000)
SIZE = len(CONTENT)
PLACE = "Corpus/list.txt"


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("S3PRL_DPHUBERT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    with served() as server:
        server.repos["some/lists"] = Repo({"list.txt": CONTENT, "other.txt": CONTENT[::-1]})
        yield server


def listed(server, *names, checksum=None, size=SIZE):
    checksum = checksum or f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
    urls = tuple(f"{server.url}/some/lists/resolve/main/{name}" for name in names or ["list.txt"])
    return PublicFile("list.txt", urls, checksum, size, (PLACE,))


def leftovers(tmp_path):
    return [path for path in (tmp_path / "cache").rglob("*.part")]


def test_a_list_is_fetched_once(server, tmp_path):
    path = listed(server).obtain(tmp_path)
    assert path.read_bytes() == CONTENT
    assert path.name == "list.txt"
    asked = len(server.log)
    assert listed(server).obtain(tmp_path / "elsewhere") == path
    assert len(server.log) == asked > 0
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("checksum", ["sha256", "git"])
def test_both_kinds_of_checksums_are_compared(server, tmp_path, checksum):
    digest = {
        "sha256": hashlib.sha256(CONTENT),
        "git": hashlib.sha1(b"blob %d\0" % len(CONTENT) + CONTENT),
    }[checksum].hexdigest()
    assert listed(server, checksum=f"{checksum}:{digest}", size=None).obtain(tmp_path).read_bytes() == CONTENT
    wrong = digest[:-1] + ("0" if digest[-1] != "0" else "1")
    with pytest.raises(DataError, match=f"its {checksum} checksum is {digest}, not {wrong}"):
        listed(server, checksum=f"{checksum}:{wrong}", size=None).obtain(tmp_path)
    assert leftovers(tmp_path) == []


def test_a_wrong_file_is_not_kept_and_the_next_place_is_tried(server, tmp_path):
    assert listed(server, "other.txt", "absent.txt", "list.txt").obtain(tmp_path).read_bytes() == CONTENT
    with pytest.raises(DataError, match="it has 300000 bytes, not 7"):
        listed(server, checksum=f"sha256:{'0' * 64}", size=7).obtain(tmp_path)
    assert leftovers(tmp_path) == []


def test_a_broken_connection_goes_on_where_it_ended(server, tmp_path):
    server.cut = [100_000, 50_000]
    assert listed(server).obtain(tmp_path).read_bytes() == CONTENT
    ranges = [range_header for method, path, range_header in server.log if "cdn" in path and method == "GET"]
    assert ranges == [None, "bytes=100000-", "bytes=150000-"]


def test_what_arrived_is_used_by_the_next_run(server, tmp_path):
    server.cut = [40_000] * fetch.ATTEMPTS
    with pytest.raises(DataError, match=r"ended after 120000 of 300000 bytes"):
        listed(server).obtain(tmp_path)
    assert [path.stat().st_size for path in leftovers(tmp_path)] == [120_000]
    server.log.clear()
    assert listed(server).obtain(tmp_path).read_bytes() == CONTENT
    assert {range_header for _, _, range_header in server.log} == {"bytes=120000-"}


def test_a_killed_download_leaves_no_list(server, tmp_path):
    server.delay = 0.2
    process = multiprocessing.get_context("fork").Process(target=listed(server).obtain, args=(tmp_path,))
    process.start()
    while process.is_alive() and not any(path.stat().st_size for path in leftovers(tmp_path)):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert list((tmp_path / "cache").rglob("list.txt")) == []
    server.delay = 0
    assert listed(server).obtain(tmp_path).read_bytes() == CONTENT


def test_a_part_that_is_whole_needs_no_byte_more(server, tmp_path):
    path = listed(server).obtain(tmp_path)
    path.rename(path.with_name(".list.txt.0.part"))  # as a process that is killed before it renames
    server.log.clear()
    assert listed(server).obtain(tmp_path).read_bytes() == CONTENT


def test_the_beginning_of_another_file_is_thrown_away(server, tmp_path):
    path = listed(server).obtain(tmp_path)
    path.with_name(".list.txt.0.part").write_bytes(CONTENT[::-1][:1000])
    path.unlink()
    assert listed(server).obtain(tmp_path).read_bytes() == CONTENT
    assert leftovers(tmp_path) == []


def test_a_damaged_list_is_fetched_again(server, tmp_path):
    path = listed(server).obtain(tmp_path)
    path.write_bytes(CONTENT[:-1] + bytes([CONTENT[-1] ^ 1]))
    assert listed(server).obtain(tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("status", [403, 404, 416, 503])
def test_an_error_says_why_and_where_to_put_the_list(server, tmp_path, status):
    server.status = status
    with pytest.raises(DataError) as error:
        listed(server, "list.txt", "other.txt").obtain(tmp_path)
    text = str(error.value)
    assert text.count(f"HTTP {status}") == 2
    assert text.endswith(f"fetch it elsewhere and put it at {tmp_path / PLACE}")


def test_no_network_is_an_error_too(tmp_path, monkeypatch):
    monkeypatch.setenv("S3PRL_DPHUBERT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    closed = PublicFile("list.txt", ("http://127.0.0.1:9/list.txt",), "sha256:0", None, (PLACE,))
    with pytest.raises(DataError, match=r"refused.*put it at"):
        closed.obtain(tmp_path)


def test_a_users_own_list_comes_first_and_may_differ(server, tmp_path, caplog):
    own = tmp_path / PLACE
    own.parent.mkdir()
    with caplog.at_level(logging.WARNING):
        own.write_bytes(CONTENT)
        assert listed(server).obtain(tmp_path) == own
        assert caplog.records == []
        own.write_bytes(b"mine")
        assert listed(server).obtain(tmp_path) == own
    assert "is not the published list.txt: it has 4 bytes, not 300000" in caplog.text
    assert server.log == []
