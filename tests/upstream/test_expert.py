"""The upstream gives the published numbers, whatever batch an utterance is in."""

from __future__ import annotations

import pytest
import torch

from s3prl_dphubert.checkpoints.directory import save_model
from s3prl_dphubert.checkpoints.load import load_model
from s3prl_dphubert.errors import CheckpointError, ConfigError
from s3prl_dphubert.upstream.cached_expert import CachedOptions
from s3prl_dphubert.upstream.entries import dphubert, dphubert_local
from s3prl_dphubert.upstream.expert import UpstreamExpert
from s3prl_dphubert.upstream.options import Options
from tests.helpers.golden import GOLDEN
from tests.helpers.models import SHAPES, tiny

PUBLISHED = (
    ("hubert_post_norm", ""),
    ("hubert_pre_norm", ""),
    ("wavlm", ""),
    ("hubert_post_norm_pruned", ""),
    ("wavlm_pruned", ""),
    ("hubert_gated.pruned", "pruned_"),
    ("hubert_gated_layers.pruned", "pruned_"),
    ("hubert_pre_norm_gated.pruned", "pruned_"),
    ("wavlm_gated.pruned", "pruned_"),
)
SAMPLES = (5000, 100, 16_000, 799, 5000, 401)  # mixed lengths, one below the receptive field of 400


def waveforms(samples=SAMPLES):
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(count, generator=generator) for count in samples]


def upstream(shape="hubert", **options):
    return UpstreamExpert(tiny(shape), Options(**options)).eval()


def assert_near(a, b, tolerance=1e-5):
    torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@torch.no_grad()
def test_samples_that_are_not_finite_are_reported(value):
    expert, wavs = upstream(padding="exact"), waveforms()
    wanted = expert(wavs)["last_hidden_state"]
    wavs[2] = wavs[2].clone()
    wavs[2][7] = value
    with pytest.warns(RuntimeWarning, match=r"wavs\[2\] has NaN or infinite samples"):
        states = expert(wavs)["last_hidden_state"]
    others = [0, 1, 3, 4, 5]
    assert_near(states[others], wanted[others])


@pytest.mark.parametrize(("file", "prefix"), PUBLISHED)
@torch.no_grad()
def test_published_hidden_states(file, prefix, golden):
    """Of whole waveforms, and of mixed lengths where the fixture is about the same input.

    Behind the ends of its shorter utterances the fixture has noise. That reaches valid frames through
    GroupNorm's statistics alone: there, and there only, the longest utterance is compared.
    """
    expected, _ = golden(file.split(".")[0])
    lengths, frames = expected["lengths"].tolist(), expected["out_lengths"].tolist()
    assert len(set(lengths)) == len(lengths) == 3
    expert = dphubert_local(GOLDEN / f"{file}.pth", None, False, precision="fp32")
    hidden = expert(list(expected["waveforms"]))["hidden_states"]
    assert isinstance(hidden, list)
    assert len(hidden) == sum(key.startswith(f"{prefix}hidden_len_") for key in expected) > 2
    for index, state in enumerate(hidden):
        assert_near(state, expected[f"{prefix}hidden_{index}"], 1e-4)

    wavs = [wav[:length] for wav, length in zip(expected["waveforms"], lengths, strict=True)]
    every = expert.model.config.extractor_mode == "layer_norm"
    for index, state in enumerate(expert(wavs)["hidden_states"]):
        for row in range(3 if every else 1):
            wanted = expected[f"{prefix}hidden_len_{index}"][row, : frames[row]]
            assert_near(state[row, : frames[row]], wanted, 1e-4)


@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_exact_padding_gives_what_an_utterance_gives_alone(shape):
    exact, wavs = upstream(shape, padding="exact"), waveforms()
    together = exact(wavs)["hidden_states"]
    for index, wav in enumerate(wavs):
        alone = exact([wav])["hidden_states"]
        assert len(alone) == len(together) == 4
        for state, other in zip(alone, together, strict=True):
            frames = state.shape[1]
            assert_near(state[0], other[index, :frames])
            assert (other[index, frames:] == other[index, frames - 1]).all()
    apart = upstream(shape, padding="batch")(wavs)["hidden_states"][-1]
    frames = exact.model.config.frames(5000)
    difference = (apart[0, :frames] - together[-1][0, :frames]).abs().max()
    config = exact.model.config
    if config.extractor_mode == "group_norm" or config.pos_conv_depth > 1:
        assert difference > 1e-3  # what exact is for
    else:
        assert difference < 1e-4


@torch.no_grad()
def test_a_batch_of_one_length_equals_its_utterances():
    expert, wavs = upstream("wavlm"), waveforms((5000, 5000, 5000))
    batch = expert(wavs)["last_hidden_state"]
    for row, wav in zip(batch, wavs, strict=True):
        assert_near(row, expert([wav])["last_hidden_state"][0])


@pytest.mark.parametrize("padding", ["batch", "exact"])
def test_fine_tuning_reaches_every_parameter(padding):
    expert, wavs = upstream("wavlm", padding=padding).train(), waveforms()
    wavs[0].requires_grad_()
    counts = {len(expert(wavs)["hidden_states"]) for _ in range(5)}
    assert counts == {4}  # no layer drop
    first, second = (expert(wavs)["last_hidden_state"] for _ in range(2))
    assert not torch.equal(first, second)  # dropout is on
    sum(state.square().mean() for state in expert(wavs)["hidden_states"]).backward()
    trained = [name for name, p in expert.named_parameters() if p.requires_grad]
    without = [name for name, p in expert.named_parameters() if p.requires_grad and p.grad is None]
    assert len(trained) > 60
    assert without == []
    assert wavs[0].grad is not None


def test_dropout_is_off_in_eval_mode():
    expert = upstream()
    first, second = (expert(waveforms())["last_hidden_state"] for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_precision(precision):
    wavs = waveforms()
    exact = upstream("hubert")(wavs)["hidden_states"]
    expert = upstream("hubert", precision=precision)
    rough = expert(wavs)["hidden_states"]
    for a, b in zip(exact, rough, strict=True):
        assert b.dtype == torch.float32
        assert not torch.equal(a, b)
        assert (a - b).abs().mean() < 0.05 * a.abs().mean()
    rough[-1].sum().backward()
    assert all(p.grad is not None for p in expert.model.encoder.transformer.layers[0].parameters())


@pytest.mark.parametrize("samples", [0, 1, 399, 400, 800, 60 * 16_000])
@torch.no_grad()
def test_any_length(samples):
    expert = upstream()
    result = expert([torch.zeros(samples)])
    frames = max(1, (samples - 400) // 320 + 1)
    assert [tuple(state.shape) for state in result["hidden_states"]] == [(1, frames, 32)] * 4
    assert all(state.isfinite().all() for state in result["hidden_states"])
    # What s3prl's Featurizer tolerates, and what S3PRLUpstream can stretch.
    assert abs(frames - round(max(samples, 400) / 320)) < 5
    if samples >= 800:
        assert len(range(0, samples, 320)) // frames == 1


def test_names_of_the_result():
    expert = upstream()
    result = expert(waveforms((16_000,)))
    assert set(result) == {"hidden_states", "last_hidden_state"} | {f"hidden_state_{i}" for i in range(4)}
    assert result["last_hidden_state"] is result["hidden_states"][-1] is result["hidden_state_3"]
    assert expert.get_downsample_rates("hidden_states") == 320


@pytest.mark.parametrize("wavs", [[], [torch.zeros(1, 16_000)], [torch.zeros(16_000), torch.zeros(())]])
def test_what_is_no_batch_of_waveforms(wavs):
    with pytest.raises(ValueError, match=r"wavs has shapes .*, allowed: one waveform \(T,\) or more"):
        upstream()(wavs)


def test_double_precision_waveforms_are_taken():
    wavs = waveforms((5000,))
    a, b = (upstream()(batch)["last_hidden_state"] for batch in (wavs, [wavs[0].double()]))
    assert torch.equal(a, b)


def test_options_from_a_file(tmp_path):
    file = tmp_path / "options.yaml"
    file.write_text("precision: bf16\npadding: exact\n")
    checkpoint = GOLDEN / "wavlm.pth"
    assert dphubert_local(checkpoint, str(file)).options == CachedOptions("bf16", "exact")
    assert dphubert_local(checkpoint, str(file), precision="fp32").options == CachedOptions("fp32", "exact")
    file.write_text("")
    assert dphubert_local(checkpoint, file).options == CachedOptions("fp32")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("precison: bf16\n", "precison: unknown field; available: precision, padding, features"),
        (
            "precision: int8\npadding: [1]\n",
            r"padding is \[1\], expected a string; precision is 'int8', allowed",
        ),
        ("- precision\n", "holds list, expected options as name: value"),
        ("precision: {\n", "not readable as YAML"),
        (None, "no such file"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_loaded(tmp_path, text, said):
    file = tmp_path / "options.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match=said):
        dphubert_local(tmp_path / "nothing", file)


def test_checkpoints_are_asked_for_and_refused_by_name(tmp_path):
    with pytest.raises(
        ConfigError, match=r"dphubert_local: ckpt \(-k\) is missing, expected a path, a Hub id"
    ):
        dphubert_local(model_config=None, refresh=False)
    with pytest.raises(ConfigError, match=r"dphubert: ckpt \(-k\) is 'some\.pth', allowed: none"):
        dphubert(ckpt="some.pth")
    with pytest.raises(CheckpointError, match="no such file or directory"):
        dphubert_local(tmp_path / "nothing")


def test_a_checkpoint_directory(tmp_path):
    file = GOLDEN / "hubert_post_norm_pruned.pth"
    folder = save_model(load_model(file), tmp_path / "model")
    a, b = (dphubert_local(source)(waveforms())["hidden_states"] for source in (folder, file))
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
