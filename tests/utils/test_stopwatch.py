import time

import pytest

from s3prl_dphubert.utils.stopwatch import Stopwatch


def test_wall_and_cpu_seconds_are_summed_by_name():
    watch = Stopwatch()
    for _ in range(2):
        with watch("sleep"):
            time.sleep(0.05)
    with watch("work"):
        end = time.process_time() + 0.05
        while time.process_time() < end:
            pass
    assert watch.wall["sleep"] >= 0.1
    assert watch.cpu["sleep"] < 0.05
    assert watch.cpu["work"] >= 0.05 and watch.wall["work"] >= watch.cpu["work"] - 0.01


def test_a_block_that_fails_is_not_counted():
    watch = Stopwatch()
    with pytest.raises(ZeroDivisionError), watch("wrong"):
        _ = 1 / 0
    assert not watch.wall
