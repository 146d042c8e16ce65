"""Hidden states on disk: every block comes back as it was, whoever wrote, died or damaged it."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time

import pytest
import torch

from s3prl_dphubert.data.feature_store import RECORD, Block, FeatureStore

LAYERS, WIDTH = 4, 32


def files(folder):
    """The one model's file of blocks and its index."""
    (blocks,) = folder.glob("*/states.f16")
    return blocks, blocks.with_name("index")


def store(folder, limit=10**9):
    return FeatureStore(folder, "model", LAYERS, WIDTH, limit)


def block(number):
    generator = torch.Generator().manual_seed(number)
    frames = 1 + number % 40
    return Block(
        number.to_bytes(16, "little"), torch.randn(LAYERS, frames, WIDTH, generator=generator).half(), 0.5
    )


def check(opened, numbers):
    """Return those of the blocks that are there, after checking that each is what it should be."""
    there = []
    for number in numbers:
        wanted = block(number)
        (place,) = opened.find([wanted.key])
        read = None if place is None else opened.read(wanted.key, place)
        if read is not None:
            assert torch.equal(read, wanted.states), number
            assert place.seconds == 0.5
            there.append(number)
    return there


def test_blocks_come_back_in_every_process(tmp_path):
    one, two = store(tmp_path), store(tmp_path)
    assert one.append(map(block, range(5))) == 5
    assert two.append(map(block, range(3, 8))) == 3  # it learns of the others' first
    assert check(one, range(10)) == check(two, range(10)) == check(store(tmp_path), range(10)) == [*range(8)]
    assert len(store(tmp_path)) == 8


def cut(path, size):
    os.truncate(path, path.stat().st_size - size)


def append(path, data):
    with path.open("ab") as file:
        file.write(data)


def flip(path, at):
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))


DAMAGES = {
    "killed while it wrote a block": (lambda blocks, index: append(blocks, b"x" * 999), 0),
    "killed before it wrote the record": (lambda blocks, index: cut(index, RECORD.itemsize), 1),
    "killed while it wrote a record": (lambda blocks, index: cut(index, 17), 1),
    "a record of zeros": (lambda blocks, index: append(index, bytes(RECORD.itemsize)), 0),
    "half a record of zeros": (lambda blocks, index: append(index, bytes(RECORD.itemsize // 2)), 0),
    "a changed record": (lambda blocks, index: flip(index, 3 * RECORD.itemsize + 20), 1),
    "blocks that never reached the disk": (lambda blocks, index: cut(blocks, 1000), 1),
    "a changed block": (lambda blocks, index: flip(blocks, 10), 1),
    "no blocks": (lambda blocks, index: os.truncate(blocks, 0), 8),
    "no index": (lambda blocks, index: os.truncate(index, 0), 8),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("known", [False, True], ids=["later", "while open"])
def test_damage_is_found_and_what_it_took_is_stored_again(tmp_path, damage, known):
    writer = store(tmp_path)
    writer.append(map(block, range(8)))
    hurt, lost = DAMAGES[damage]
    hurt(*files(tmp_path))
    opened = writer if known else store(tmp_path)
    there = check(opened, range(8))
    if not known:
        assert len(there) == 8 - lost
    opened.append(block(number) for number in range(12))
    assert check(opened, range(12)) == [*range(12)]
    last = store(tmp_path)  # which misses a record that changed after the other had read it
    last.append(block(number) for number in range(12))
    assert check(last, range(12)) == check(store(tmp_path), range(12)) == [*range(12)]


def test_an_index_that_cannot_be_written_loses_nothing(tmp_path, monkeypatch):
    writer, write = store(tmp_path), os.write
    writer.append(map(block, range(4)))

    def full(file, data):
        if len(data) == 3 * RECORD.itemsize:
            write(file, bytes(data[: RECORD.itemsize + 20]))
            raise OSError(28, "No space left on device")
        return write(file, data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        assert writer.append(map(block, range(4, 7))) == 0
    assert "No space left" in writer.closed
    later = store(tmp_path)
    assert check(later, range(7)) == [0, 1, 2, 3, 4]
    later.append(map(block, range(9)))
    assert check(later, range(9)) == check(store(tmp_path), range(9)) == [*range(9)]


def test_a_removed_folder_is_made_again(tmp_path):
    writer = store(tmp_path)
    writer.append(map(block, range(4)))
    for path in files(tmp_path):
        path.unlink()
    (tmp_path / "model").rmdir()
    assert writer.append(map(block, range(2, 6))) == 4
    assert check(writer, range(6)) == check(store(tmp_path), range(6)) == [2, 3, 4, 5]


def _fill(folder, seed):
    mine = store(folder)
    numbers = [*range(300)]
    random.Random(seed).shuffle(numbers)
    for first in range(0, 300, 5):
        check(mine, numbers[first : first + 5])
        mine.append(block(number) for number in numbers[first : first + 5])


def test_processes_that_are_killed_at_any_moment(tmp_path):
    """Three at a time fill one store, and are killed; the last ones finish, and every block is right."""
    fork, moments = multiprocessing.get_context("fork"), random.Random(0)
    for turn in range(6):
        started = [fork.Process(target=_fill, args=(tmp_path, 3 * turn + n)) for n in range(3)]
        for process in started:
            process.start()
        time.sleep(moments.uniform(0.02, 0.15))
        for process in started:
            process.kill()  # one that has filled the store already has ended
            process.join()
            assert process.exitcode in (-signal.SIGKILL, 0)
    started = [fork.Process(target=_fill, args=(tmp_path, 100 + n)) for n in range(2)]
    for process in started:
        process.start()
    for process in started:
        process.join()
    assert [process.exitcode for process in started] == [0, 0]
    assert check(store(tmp_path), range(300)) == [*range(300)]
    blocks, index = files(tmp_path)
    assert blocks.stat().st_size == sum(2 * block(number).states.numel() for number in range(300))
    assert index.stat().st_size == 300 * RECORD.itemsize
