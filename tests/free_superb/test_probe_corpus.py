import numpy as np
import pytest

from s3prl_dphubert.errors import DataError
from s3prl_dphubert.free_superb import build
from s3prl_dphubert.free_superb.probe_corpus import aligned_corpus, is_build
from s3prl_dphubert.free_superb.voices import HELD_OUT, ROLES
from s3prl_dphubert.probe.aligned_corpus import AlignedCorpus
from s3prl_dphubert.probe.pooled_states import durations
from tests.helpers import debian_packages

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packages")
    debian_packages.build(folder)
    return folder


@pytest.fixture(scope="module")
def built(packages, tmp_path_factory):
    out = tmp_path_factory.mktemp("probe") / "free-superb"
    with pytest.MonkeyPatch.context() as patch:
        debian_packages.shrink(patch.setattr)
        build.build(out, ["pr"], packages / "debs", tables=packages / "tables")
    return out


def test_a_build_is_an_aligned_corpus(packages, built):
    assert is_build(built) and not is_build(packages)
    corpus = aligned_corpus(built, packages / "tables")
    assert set(corpus.unheard) == set(HELD_OUT) & set(debian_packages.VOICES)
    assert set(corpus.speakers) <= {voice for voices in ROLES.values() for voice in voices}
    assert (durations(corpus) > 0.3).all()
    for each, seconds in zip(corpus.utterances, durations(corpus), strict=True):
        assert each.words and each.words[-1].end <= seconds + 0.02
        assert [word.start for word in each.words] == sorted(word.start for word in each.words)


def test_it_can_be_written_as_a_table(packages, built):
    corpus = aligned_corpus(built, packages / "tables")
    corpus.write(built / "aligned.tsv.gz")
    assert AlignedCorpus.read(built).sha256 == corpus.sha256
    assert np.array_equal(durations(AlignedCorpus.read(built)), durations(corpus))


def test_a_build_without_recordings_says_so(built, tmp_path):
    (tmp_path / build.MARK).write_text("x")
    with pytest.raises(DataError, match="build a task with recordings first"):
        aligned_corpus(tmp_path)
