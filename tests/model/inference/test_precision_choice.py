"""Choice of the faster precision: what is measured, what is kept, what is said."""

from __future__ import annotations

import json
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from s3prl_dphubert.checkpoints.directory import save_model
from s3prl_dphubert.compression.compress_config import CompressConfig
from s3prl_dphubert.compression.compression_run import CompressionRun
from s3prl_dphubert.errors import ConfigError
from s3prl_dphubert.model.inference import precision_choice
from s3prl_dphubert.model.inference.folded import fold
from s3prl_dphubert.model.inference.precision_choice import choose, measure, products, resolve
from s3prl_dphubert.training.distributed import Processes
from s3prl_dphubert.training.train_config import TrainConfig
from s3prl_dphubert.upstream.cached_expert import CachedExpert, CachedOptions, FeatureOptions, fingerprint
from s3prl_dphubert.upstream.entries import dphubert_local
from s3prl_dphubert.upstream.expert import UpstreamExpert
from s3prl_dphubert.upstream.options import Options
from tests.helpers.golden import GOLDEN
from tests.helpers.models import FAMILIES, assert_same, tiny

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("S3PRL_DPHUBERT_CACHE", str(tmp_path / "cache"))
    precision_choice._choose.cache_clear()
    yield
    precision_choice._choose.cache_clear()


def measured(monkeypatch, bf16, training=None):
    """Let bf16 take that share of float32's time, and training another; return the calls."""
    calls = []

    def fake(shapes, device, lower, trains):
        calls.append((lower, trains))
        return {"fp32": 1.0, lower: bf16 if not trains or training is None else training}

    monkeypatch.setattr(precision_choice, "measure", fake)
    return calls


def test_the_products_of_a_model_are_what_it_multiplies():
    """Multiplications of the list are those of HuBERT Base for four seconds, but for conv.0 and attention."""
    config = FAMILIES["hubert_base"]
    total = sum(rows * count * i * o * k for (_, i, o, k), rows, count in products(config))
    conv = sum(512 * 512 * k * 200 * 2**n for n, k in ((5, 3), (4, 3), (3, 3), (2, 3), (1, 2), (0, 2)))
    layers = 12 * (4 * 768**2 + 2 * 768 * 3072)
    assert total == conv + 200 * (512 * 768 + layers)
    pruned = replace(config, heads=((0,), None, (), *config.heads[3:]), ffn=(0, None, 7, *config.ffn[3:]))
    assert ("linear", 768, 7, 1) in [product for product, _, _ in products(pruned)]


@pytest.mark.parametrize("training", [False, True])
def test_a_measurement_is_short_and_leaves_the_process_as_it_was(training):
    shapes = products(tiny("hubert").config)
    threads, state, began = torch.get_num_threads(), torch.get_rng_state(), time.process_time()
    seconds = measure(shapes, CPU, "bf16", training)
    assert time.process_time() - began < 2
    assert seconds.keys() == {"fp32", "bf16"} and min(seconds.values()) > 0
    assert torch.get_num_threads() == threads and torch.equal(torch.get_rng_state(), state)


def test_the_choice_is_the_faster_one_twice():
    """Measured here, on two empty caches; within the hysteresis either may win."""
    config = FAMILIES["hubert_base"]
    first = choose(config, CPU)
    assert (first.precision == "bf16") == (first.ratio < precision_choice.GAIN)
    precision_choice._choose.cache_clear()
    for path in (precision_choice.user_cache_dir() / "precision").iterdir():
        path.unlink()
    second = choose(config, CPU)
    if abs(first.ratio - precision_choice.GAIN) > 0.25:
        assert second.precision == first.precision


@pytest.mark.parametrize(("ratio", "chosen"), [(0.5, "bf16"), (0.89, "bf16"), (0.95, "fp32"), (2.0, "fp32")])
def test_what_is_hardly_faster_is_not_chosen(monkeypatch, caplog, ratio, chosen):
    measured(monkeypatch, ratio)
    config = tiny("hubert").config
    with caplog.at_level(logging.WARNING):
        assert resolve("auto", config, CPU) == resolve("auto", config, CPU) == chosen
    (line,) = caplog.messages
    assert line.startswith(f"precision auto: {chosen}, since bf16 takes {ratio:.2f} of float32's time")
    assert resolve("fp16", config, CPU) == "fp16"


def test_a_choice_is_kept_for_machine_shape_and_versions(monkeypatch):
    calls = measured(monkeypatch, 0.5, training=2.0)
    config = tiny("hubert").config
    assert resolve("auto", config, CPU) == "bf16"
    assert resolve("auto", config, CPU, training=True) == "fp32"
    precision_choice._choose.cache_clear()  # as in another process
    assert resolve("auto", config, CPU) == "bf16" and len(calls) == 2
    resolve("auto", replace(config, ffn=(8, *config.ffn[1:])), CPU)
    monkeypatch.setattr(precision_choice, "versions", lambda packages: {"torch": "9"})
    precision_choice._choose.cache_clear()
    resolve("auto", config, CPU)
    assert calls == [("bf16", False), ("bf16", True), ("bf16", False), ("bf16", False)]


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"precision": "fp8"}', "lies", "\x00"])
def test_a_damaged_cache_is_measured_again(monkeypatch, content):
    calls = measured(monkeypatch, 0.5)
    config = tiny("hubert").config
    resolve("auto", config, CPU)
    (path,) = (precision_choice.user_cache_dir() / "precision").iterdir()
    if content == "lies":  # a choice that its own numbers contradict
        content = json.dumps(json.loads(path.read_text()) | {"precision": "fp32"})
    path.write_text(content)
    precision_choice._choose.cache_clear()
    assert resolve("auto", config, CPU) == "bf16" and len(calls) == 2
    assert json.loads(path.read_text())["precision"] == "bf16"


def test_threads_that_choose_at_once_agree(monkeypatch):
    measured(monkeypatch, 0.5)
    config = tiny("hubert").config
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: resolve("auto", config, CPU), range(8))) == {"bf16"}


def test_of_several_processes_the_first_one_says_what_was_chosen(monkeypatch, caplog):
    measured(monkeypatch, 0.5)
    for rank, lines in (("1", 0), ("0", 1)):
        monkeypatch.setenv("RANK", rank)
        precision_choice._choose.cache_clear()
        resolve("auto", tiny("hubert").config, CPU)
        assert len(caplog.messages) == lines


def test_a_cache_that_cannot_be_written_costs_nothing_else(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("S3PRL_DPHUBERT_CACHE", str(tmp_path / "file"))
    measured(monkeypatch, 0.5)
    assert resolve("auto", tiny("hubert").config, CPU) == "bf16"


@pytest.mark.parametrize(("ratio", "chosen"), [(0.5, "bf16"), (2.0, "fp32")])
@torch.no_grad()
def test_models_and_upstreams_take_the_choice(monkeypatch, ratio, chosen):
    measured(monkeypatch, ratio)
    model, wavs = tiny("hubert"), torch.randn(2, 4000)
    assert fold(model, "auto").precision == chosen
    assert_same(fold(model, "auto").extract_features(wavs)[0], fold(model, chosen).extract_features(wavs)[0])
    auto, same = (UpstreamExpert(model, Options(precision=name)).eval() for name in ("auto", chosen))
    assert_same(auto([*wavs])["hidden_states"], same([*wavs])["hidden_states"])
    with pytest.raises(ConfigError, match="precision is 'int8', allowed: fp32, bf16, fp16, auto"):
        fold(model, "int8")


def test_an_upstream_in_training_is_float32(monkeypatch):
    measured(monkeypatch, 0.5)
    model, wavs = tiny("hubert"), [torch.randn(4000)]
    auto, plain = (UpstreamExpert(model, Options(precision=name)) for name in ("auto", "fp32"))
    assert_same(auto(wavs)["hidden_states"], plain(wavs)["hidden_states"])


@torch.no_grad()
def test_an_upstream_is_validated_in_the_precision_of_its_training(monkeypatch):
    measured(monkeypatch, 0.5)
    auto = UpstreamExpert(tiny("hubert"), Options(precision="auto"))
    assert auto.eval().chosen_precision(CPU) == "bf16"
    with torch.enable_grad():
        auto.train()([torch.randn(4000)])
    assert auto.eval().chosen_precision(CPU) == "fp32"


@pytest.mark.parametrize(
    ("variable", "options", "chosen"),
    [
        (None, {}, "auto"),
        ("", {}, "auto"),
        ("fp32", {}, "fp32"),
        ("fp32", {"precision": "fp16"}, "fp16"),
        ("fp32", {"precision": "auto"}, "auto"),
    ],
)
def test_upstreams_take_the_faster_precision_unless_told_otherwise(monkeypatch, variable, options, chosen):
    measured(monkeypatch, 0.5)
    monkeypatch.delenv("S3PRL_DPHUBERT_PRECISION")
    if variable is not None:
        monkeypatch.setenv("S3PRL_DPHUBERT_PRECISION", variable)
    expert, wavs = dphubert_local(GOLDEN / "wavlm.pth", **options).eval(), [torch.randn(4000)]
    assert expert.options.precision == chosen
    if chosen == "auto":
        bf16 = dphubert_local(GOLDEN / "wavlm.pth", precision="bf16").eval()
        with torch.no_grad():
            assert_same(expert(wavs)["hidden_states"], bf16(wavs)["hidden_states"])


def test_a_precision_of_the_environment_is_checked_before_anything_is_loaded(monkeypatch, tmp_path):
    monkeypatch.setenv("S3PRL_DPHUBERT_PRECISION", "int8")
    with pytest.raises(ConfigError, match="S3PRL_DPHUBERT_PRECISION is 'int8', allowed: fp32, bf16, fp16"):
        dphubert_local(tmp_path / "nothing")


@torch.no_grad()
def test_what_overflows_in_the_precision_that_was_chosen_is_computed_in_float32(monkeypatch):
    """On a GPU float16 is the lower precision; the choice alone is simulated here."""

    def choose(precision, *_):
        return "fp16" if precision == "auto" else precision

    monkeypatch.setattr("s3prl_dphubert.upstream.expert.resolve", choose)
    model, wavs = tiny("hubert"), [torch.randn(4000)]
    expert = UpstreamExpert(model, Options(precision="auto")).eval()
    assert not torch.equal(*(e(wavs)["last_hidden_state"] for e in (expert, UpstreamExpert(model).eval())))
    layer = model.encoder.transformer.layers[1].feed_forward
    layer.intermediate_dense.weight *= 1e6
    layer.output_dense.weight *= 1e-6
    exact = UpstreamExpert(model).eval()(wavs)["hidden_states"]
    assert all(state.isfinite().all() for state in exact)
    with pytest.warns(RuntimeWarning, match="values beyond float16"):
        assert_same(expert(wavs)["hidden_states"], exact)
    asked = UpstreamExpert(model, Options(precision="fp16")).eval()(wavs)["last_hidden_state"]
    assert not asked.isfinite().all()  # as was asked for


@torch.no_grad()
def test_the_cache_of_hidden_states_is_named_by_the_choice(monkeypatch, tmp_path, no_downstream):
    measured(monkeypatch, 0.5)
    model = tiny("hubert")
    options = CachedOptions(precision="auto", padding="exact", features=FeatureOptions(str(tmp_path / "f")))
    expert = CachedExpert(model, options).eval()
    expert([torch.randn(4000)])
    folders = [path.name for path in (tmp_path / "f").iterdir() if path.is_dir()]
    assert folders == [fingerprint(model, "bf16", CPU)]


def test_teacher_and_student_of_a_run_choose_apart(monkeypatch, tmp_path):
    measured(monkeypatch, 0.5, training=2.0)
    save_model(tiny("hubert"), tmp_path / "teacher")
    (tmp_path / "x.tsv").write_text("path\tsamples\n")
    auto = TrainConfig(updates=1, warmup=0, precision="auto")
    config = CompressConfig.create(
        teacher=str(tmp_path / "teacher"),
        data=str(tmp_path / "x.tsv"),
        budget={"warmup": 0},
        stage1=auto,
        stage2=auto,
    )
    (tmp_path / "out").mkdir()
    run = CompressionRun(config, tmp_path / "out", Processes())
    for stage in ("stage1", "stage2"):
        train = getattr(run.with_precision(stage, run.teacher.config), stage)
        assert (train.precision, train.teacher_precision) == ("fp32", "bf16")
    assert run.config.stage1 == auto
    plain = replace(config, stage1=replace(auto, precision="bf16"))
    run = CompressionRun(plain, tmp_path / "out", Processes())
    assert run.with_precision("stage1", run.teacher.config) == plain
