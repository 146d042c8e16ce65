"""Files that ``export`` writes: what they hold, how they run, what is refused."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
import soundfile
import torch

from s3prl_dphubert.checkpoints.directory import save_model
from s3prl_dphubert.checkpoints.load import load_model
from s3prl_dphubert.cli import main
from s3prl_dphubert.errors import CheckpointError, ConfigError, ExportError
from s3prl_dphubert.export import (
    ExportConfig,
    calibration_data,
    export_model,
    exporter,
    load_exported,
    report,
    speech_batches,
)
from s3prl_dphubert.export.backends import FORMATS, feeds_of
from s3prl_dphubert.export.batching import divide
from s3prl_dphubert.model.inference import precision_choice
from s3prl_dphubert.model.inference.folded import SPILL
from s3prl_dphubert.upstream.entries import dphubert_local
from s3prl_dphubert.upstream.expert import UpstreamExpert
from s3prl_dphubert.upstream.options import Options
from s3prl_dphubert.utils import resources
from tests.helpers.golden import GOLDEN
from tests.helpers.models import SHAPES, assert_same, tiny
from tests.helpers.s3prl_runs import Experiment
from tests.helpers.speech import chirp

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PRUNED = GOLDEN / "wavlm_pruned.pth"
SAMPLES = (9000, 300, 4321, 9000)  # one below the receptive field of 400


@pytest.fixture(scope="module", autouse=True)
def short_measurements():
    """Every export measures its speed, here on one second of audio, and short batches."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "SECONDS", 1)
        patch.setattr(report, "LONG", 1)
        patch.setattr(speech_batches, "LENGTHS", (1.0, 0.5, 0.3, 0.1))
        yield


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speech")
    lines = ["path\tsamples"]
    for index, seconds in enumerate((1.0, 0.02, 0.7)):
        soundfile.write(folder / f"{index}.wav", chirp(seconds), 16_000)
        lines.append(f"{folder / f'{index}.wav'}\t{int(seconds * 16_000)}")
    (folder / "speech.tsv").write_text("\n".join(lines) + "\n")
    return folder / "speech.tsv"


@pytest.fixture(scope="module")
def files(tmp_path_factory, manifest):
    """Format -> the exported file and its report."""
    folder = tmp_path_factory.mktemp("exported")
    made = {}
    for form, name in (("onnx", "model.onnx"), ("openvino", "deeper/model.xml")):
        config = ExportConfig(format=form, check=manifest, threads=1)
        made[form] = folder / name, export_model(PRUNED, folder / name, config)
    return made


def waveforms():
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(count, generator=generator) for count in SAMPLES]


def printed(script, *arguments):
    """Return what a script prints in a process of its own."""
    run = [sys.executable, "-c", script, *map(str, arguments)]
    ended = subprocess.run(run, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.parametrize("form", ["onnx", "openvino"])
@torch.no_grad()
def test_the_interface_of_the_model(files, form):
    path, report = files[form]
    model, runtime = load_model(PRUNED), load_exported(path, threads=1)
    assert runtime.config == model.config
    wavs, ends = torch.randn(2, 5000), torch.tensor([5000, 3000])
    wavs[1, 3000:] = 0
    for lengths in (None, ends):
        states, frames = runtime.extract_features(wavs, lengths)
        if lengths is None:
            assert frames is None
            assert_same(states, model.extract_features(wavs)[0])
        else:
            assert_known_frames_same(runtime, model, wavs, lengths)
    again, _ = runtime.extract_features(wavs)
    later, _ = runtime.extract_features(torch.zeros(2, 5000))
    assert not torch.equal(again[-1], later[-1])  # results do not share memory with later ones
    assert_same(again, model.extract_features(wavs)[0])
    assert max(report.errors.states.values()) < 1e-5 and report.errors.largest < 1e-4
    with pytest.raises(ValueError, match=r"waveforms has shape \(1, 399\), allowed: \(B, T\) with T of at"):
        runtime.extract_features(torch.zeros(1, 399))
    with pytest.raises(ValueError, match=r"lengths has shape \(1,\), allowed: \(2,\)"):
        runtime.extract_features(torch.zeros(2, 400), torch.tensor([400]))


@pytest.mark.parametrize("form", ["onnx", "openvino"])
@torch.no_grad()
def test_batches_on_several_threads(files, form):
    """OpenVINO runs them in parts: the rows come back in their order, whatever their number and length."""
    path, _ = files[form]
    model, runtime = load_model(PRUNED), load_exported(path, threads=2)
    for rows, samples in ((5, 4000), (2, 400), (3, 6161), (1, 3000), (8, 1999)):
        lengths = torch.randint(400, samples + 1, (rows,)).tolist()
        wavs, ends = padded([samples, *lengths[1:]])
        assert_known_frames_same(runtime, model, wavs, ends)
        assert_same(runtime.extract_features(wavs)[0], model.extract_features(wavs)[0])


@pytest.mark.parametrize("form", ["onnx", "openvino"])
@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_padding_is_cut_and_counts(tmp_path, manifest, shape, form):
    """Lengths so far apart that much is cut, which GroupNorm's statistics count all the same."""
    save_model(tiny(shape), tmp_path / "model")
    config = ExportConfig(format=form, check=manifest, threads=2)
    path = tmp_path / f"file{FORMATS[form]}"
    export_model(tmp_path / "model", path, config)
    model, runtime = load_model(tmp_path / "model"), load_exported(path, threads=2)
    wavs, ends = padded([6000, 64_000, 400, 23_456, 1, 399, 64_000 - 320])
    session = runtime.session
    parts = divide(
        model.config, 64_000, model.frame_lengths(ends).tolist(), session.streams, session.part_frames
    )
    assert sum(len(part.rows) * part.samples for part in parts) < 0.6 * wavs.numel()
    assert_known_frames_same(runtime, model, wavs, ends)


def padded(lengths):
    """Waveforms (B, T) with an offset, zero behind their ends, and their lengths (B,)."""
    wavs, ends = torch.randn(len(lengths), max(lengths)) + 0.3, torch.tensor(lengths)
    for row, length in zip(wavs, lengths, strict=True):
        row[length:] = 0
    return wavs, ends


def assert_known_frames_same(runtime, model, wavs, ends):
    """Up to the two frames after its end that s3prl may count, each utterance is the model's; then 0."""
    exact, counted = model.extract_features(wavs, ends)
    states, frames = runtime.extract_features(wavs, ends)
    assert frames.tolist() == counted.tolist()
    for state, wanted in zip(states, exact, strict=True):
        assert state.shape == wanted.shape
        for row, other, count in zip(state, wanted, frames.tolist(), strict=True):
            known = count and count + SPILL
            torch.testing.assert_close(row[:known], other[:known], atol=1e-4, rtol=1e-4)
            assert not row[known:].any()


@torch.no_grad()
def test_batches_from_several_python_threads(files):
    model, runtime = load_model(PRUNED), load_exported(files["openvino"][0], threads=2)
    batches = [torch.randn(rows, samples) for rows, samples in ((4, 3000), (1, 5000), (6, 400), (1, 4321))]
    with ThreadPoolExecutor(len(batches)) as pool:
        for wavs, (states, _) in zip(batches, pool.map(runtime.extract_features, batches), strict=True):
            assert_same(states, model.extract_features(wavs)[0])


@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_what_a_file_says_of_itself(files, form):
    path, report = files[form]
    info = load_exported(path, threads=1).info
    assert info == report.info
    assert (info.precision, info.int8, info.checkpoint) == ("fp32", (), str(PRUNED))
    assert len(info.weights) == 64 and info.versions["torch"] == torch.__version__.split("+")[0]
    assert info.layers == tuple(range(info.config.num_layers + 1))
    text = json.loads(path.with_name(f"{path.name}.report.json").read_text())
    assert text["errors"]["states"] == {str(layer): error for layer, error in report.errors.states.items()}
    assert text["errors"]["worst"].keys() == {"alone", "short", "mixed"}
    assert text["utterances"] == 3 and text["ratios"].keys() == {f"{form}, float32", "torch, float32"}
    page = path.with_name(f"{path.name}.report.md").read_text()
    assert page.startswith(f"# {path.name}\n") and "| mean | 0.000% |" in page
    left = {file.name for file in path.parent.iterdir()}
    own = {path.name, f"{path.name}.report.json", f"{path.name}.report.md"}
    assert left - {"deeper"} == own | ({"model.bin"} if form == "openvino" else set())
    if form == "onnx":
        facts = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
        assert json.loads(facts["s3prl_dphubert"])["stride"] == info.config.stride


@pytest.mark.parametrize("form", ["onnx", "openvino"])
@pytest.mark.parametrize("padding", ["batch", "exact"])
@torch.no_grad()
def test_an_upstream(files, form, padding):
    expert = dphubert_local(ckpt=files[form][0], model_config=None, padding=padding).eval()
    exact = UpstreamExpert(load_model(PRUNED), Options(padding=padding)).eval()
    output, wanted = expert(waveforms()), exact(waveforms())
    assert output.keys() == wanted.keys()
    for state, other in zip(output["hidden_states"], wanted["hidden_states"], strict=True):
        assert state.shape == other.shape
        for row, samples in enumerate(SAMPLES):  # what a batch holds behind an utterance's end is nobody's
            valid = None if padding == "exact" else exact.model.config.frames(max(samples, 400))
            assert_same([state[row, :valid]], [other[row, :valid]])
    assert expert.get_downsample_rates("hidden_states") == exact.get_downsample_rates("hidden_states")


@pytest.mark.slow
@pytest.mark.s3prl
def test_s3prl_takes_a_file(files):
    """Through s3prl's own hub and S3PRLUpstream, in a process of its own."""
    script = (
        "import sys, torch\n"
        "from s3prl.nn import S3PRLUpstream\n"
        "torch.manual_seed(0)\n"
        "wavs, ends = torch.randn(2, 16000), torch.tensor([16000, 8000])\n"
        "a, b = (S3PRLUpstream('dphubert_local', path_or_url=path).eval() for path in sys.argv[1:])\n"
        "with torch.no_grad():\n"
        "    (hidden, frames), (exact, counted) = a(wavs, ends), b(wavs, ends)\n"
        "worst = 0\n"
        "for x, y, n in zip(hidden, exact, counted, strict=True):\n"
        "    worst = max([worst, *((p[:k] - q[:k]).abs().max().item() for p, q, k in zip(x, y, n))])\n"
        "same = [(p == q).all().item() for p, q in zip(frames, counted, strict=True)]\n"
        "print(len(hidden), worst, all(same), a.num_layers == b.num_layers)\n"
    )
    count, difference, *same = printed(script, files["onnx"][0], PRUNED).split()
    assert int(count) == load_model(PRUNED).config.num_layers + 1
    assert float(difference) < 1e-4 and same == ["True", "True"]


def test_chosen_hidden_states(tmp_path, manifest):
    source = save_model(tiny("hubert"), tmp_path / "model")
    out = tmp_path / "few.onnx"
    arguments = ["export", str(source), str(out), "--format", "onnx", "--layers", "0,2", "--threads", "1"]
    assert main([*arguments, "--check", str(manifest)]) == 0
    runtime, wavs = load_exported(out, 1), torch.randn(1, 4000)
    states, _ = runtime.extract_features(wavs)
    exact, _ = tiny("hubert").extract_features(wavs)
    assert runtime.info.layers == (0, 2)
    assert_same(states, [exact[0].detach(), exact[2].detach()])
    assert len(dphubert_local(out)(waveforms())["hidden_states"]) == 2


def test_an_exported_file_refuses_to_be_fine_tuned_by_s3prl(files, monkeypatch):
    """With ``-f`` its runner switches the upstream to training and calls it with gradients."""
    monkeypatch.setitem(sys.modules, "s3prl.downstream.runner", ModuleType("runner"))
    expert = dphubert_local(files["onnx"][0])
    waves = [torch.zeros(16_000)]
    with pytest.raises(ConfigError, match=r"an exported file cannot be fine-tuned \(-f\)"):
        expert.train()(waves)
    expert.eval()(waves)
    with torch.no_grad():
        expert.train()(waves)


@torch.no_grad()
def test_long_audio_in_windows(files):
    """The convolutions of 9 s in windows of 2 s, beside a short utterance: the states of the whole."""
    model = load_model(PRUNED)
    wavs, ends = padded([9 * 16_000, 20_000, 5 * 16_000])
    for path, _ in files.values():
        runtime = load_exported(path, threads=1, window=2)
        assert_known_frames_same(runtime, model, wavs, ends)
        assert_same(runtime.extract_features(wavs)[0], model.extract_features(wavs)[0])


def test_the_fastest_file_within_the_limit(tmp_path, manifest, monkeypatch):
    """auto builds both formats, measures, and keeps one; never one that measured slower."""
    source = save_model(tiny("hubert"), tmp_path / "model")
    config = ExportConfig(format="auto", precision="auto", check=manifest, calibrate=manifest, threads=1)
    made = export_model(source, tmp_path / "small", config)
    assert made.candidates.keys() == {f"{f}, {p}" for f in FORMATS for p in ("fp32", "bf16", "int8")} - {
        "onnx, bf16"
    }
    form = "openvino" if (tmp_path / "small.xml").exists() else "onnx"
    times = {name: time for name, (time, _) in made.candidates.items() if time is not None}
    assert times[f"{form}, {made.info.precision}"] <= times["openvino, fp32"]
    assert made.errors.largest <= 0.03
    again = {path.name for path in tmp_path.iterdir()} - {"model"}
    assert again == {path.name for path in exporter.targets(tmp_path / f"small{FORMATS[form]}")}


def test_no_file_beyond_the_limit(tmp_path, manifest):
    source = save_model(tiny("hubert"), tmp_path / "model")
    config = ExportConfig(precision="bf16", check=manifest, threads=1, max_error=1e-5)
    with pytest.raises(
        ExportError, match=r"max_error is 1e-05, but an utterance is off by .* in openvino, bf16"
    ):
        export_model(source, tmp_path / "small.xml", config)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


RAW = """
import json, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("s3prl_dphubert", "torch", "onnx"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocked())
import numpy as np
"""


@pytest.mark.parametrize("form", FORMATS)
@torch.no_grad()
def test_the_snippets_of_the_page_on_production(tmp_path, manifest, form):
    """Each runs as it is printed, in a process that can import neither this package nor torch."""
    page = (ROOT / "docs/how-to/production.md").read_text()
    blocks = re.findall(r"```python\n# (\w+)\n(.*?)```", page, re.DOTALL)
    snippet = "".join(code for name, code in blocks if name in ("inputs", form, "show"))
    model = load_model(resources.find("assets/hubert_mini"))
    path = tmp_path / f"model{FORMATS[form]}"
    export_model("hubert_mini", path, ExportConfig(format=form, check=manifest, threads=1))
    wavs, ends = padded([16_000, 5000])
    np.savez(tmp_path / "batch.npz", waveforms=wavs.numpy(), lengths=ends.numpy())
    given = f"file = {str(path)!r}\nbatch = np.load({str(tmp_path / 'batch.npz')!r})\n"
    given += "waveforms, lengths = batch['waveforms'], batch['lengths']\n"
    save = f"np.savez({str(tmp_path / 'states.npz')!r}, **outputs)\n"
    printed(RAW + given + snippet + save)
    outputs = np.load(tmp_path / "states.npz")
    exact, frames = model.extract_features(wavs, ends)
    assert outputs["frames"].tolist() == frames.tolist()
    for index, state in enumerate(exact):
        for row, count in enumerate(frames.tolist()):
            same = torch.from_numpy(outputs[f"hidden_state_{index}"][row, :count])
            torch.testing.assert_close(same, state[row, :count], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
@torch.no_grad()
def test_openvino_with_nothing_but_the_inputs(tmp_path, manifest, precision):
    """Without our precision hint: finite for odd inputs, too, and as near as products in bfloat16 are."""
    import openvino

    path = tmp_path / "model.xml"
    config = ExportConfig(precision=precision, check=manifest, threads=1)
    export_model("hubert_mini", path, config)
    compiled = openvino.Core().compile_model(str(path), "CPU")
    model = load_model(resources.find("assets/hubert_mini"))
    speech = calibration_data.check(None, 400)[0][:, :16_000]
    sine = 0.3 * torch.sin(torch.arange(8000) / 20)[None]
    odd = [
        torch.full((1, 8000), 0.1),
        torch.zeros(1, 8000),
        speech + 0.3,
        1e-4 * speech,
        sine,
        speech[:, :400],
    ]
    for wav in (speech, *odd):
        fed = feeds_of(model.config, wav.numpy())
        outputs = compiled({name: fed[name] for name in ("waveforms", "lengths", "earlier", "statistics")})
        states = {port.get_any_name(): outputs[port] for port in compiled.outputs}
        for index, state in enumerate(model.extract_features(wav)[0]):
            hidden, exact = states[f"hidden_state_{index}"], state.numpy()
            assert np.isfinite(hidden).all()
            if precision != "int8":
                assert np.abs(hidden - exact).sum() < 0.02 * np.abs(exact).sum()


@pytest.mark.s3prl
def test_fine_tuning_a_file_ends_s3prls_run(files, tmp_path):
    """In a real ``run_downstream -f``, whose head alone would train."""
    experiment = Experiment("sid", tmp_path, ["-u", "dphubert_local", "-k", str(files["onnx"][0]), "-f"])
    ended = experiment.one(experiment.train)
    assert ended.code != 0 and "an exported file cannot be fine-tuned (-f)" in ended.err


def test_int8_from_a_manifest(tmp_path, manifest, capsys):
    source = save_model(tiny("hubert"), tmp_path / "model")
    out = tmp_path / "small.xml"
    arguments = ["export", str(source), str(out), "--precision", "int8", "--threads", "1"]
    assert main([*arguments, "--calibrate", str(manifest), "--check", str(manifest)]) == 0
    assert "## Products in 8 bits" in capsys.readouterr().out
    runtime = load_exported(out, 1)
    assert runtime.info.precision == "int8" and runtime.info.int8
    assert all(state.isfinite().all() for state in runtime.extract_features(torch.randn(2, 400))[0])


@pytest.mark.parametrize("faster", ["fp32", "bf16"])
def test_what_8_bits_leave_is_computed_in_what_is_faster_here(tmp_path, manifest, monkeypatch, faster):
    """Where bfloat16 is slow, a file in 8 bits has none of it; a named precision measures nothing."""
    measured = {"fp32": 1.0, "bf16": 0.5 if faster == "bf16" else 2.0}
    monkeypatch.setenv("S3PRL_DPHUBERT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(precision_choice, "measure", lambda *_: measured)
    precision_choice._choose.cache_clear()
    source = save_model(tiny("hubert"), tmp_path / "model")
    other = "bf16" if faster == "fp32" else "fp32"
    for rest, expected in (("auto", faster), (other, other)):
        path = tmp_path / f"{rest}.xml"
        export_model(source, path, ExportConfig(precision="int8", rest=rest, check=manifest, threads=1))
        types = set(re.findall(r' precision="(\w+)"', path.read_text()))
        assert load_exported(path, 1).info.rest == expected
        assert ("BF16" in types) == (expected == "bf16") and types & {"I8", "U8"}
        assert f"All others are computed in {expected}." in (tmp_path / f"{rest}.xml.report.md").read_text()
    precision_choice._choose.cache_clear()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["m.onnx", "--format", "tflite"], "format is 'tflite', allowed: onnx, openvino, auto"),
        (["m.onnx", "--precision", "fp8"], "precision is 'fp8', allowed: fp32, bf16, int8, auto"),
        (
            ["m.onnx", "--format", "openvino"],
            "OUT is m.onnx, allowed: a name that ends in .xml, for openvino",
        ),
        (["m.xml", "--format", "auto"], "OUT is m.xml, allowed with format auto: a name without .xml"),
        (["m.xml", "--layers", "2,1"], r"layers is \(2, 1\), allowed: rising numbers"),
        (["m.xml", "--layers", "all"], "--layers is 'all', allowed: numbers with commas"),
        (["m.xml", "--layers", "0,99"], "layers has 99, allowed: 0 to "),
        (["m.xml", "--max-error", "0", "--threads", "0"], "max_error is 0.0, .*; threads is 0, allowed"),
        (["m.xml", "--calibrate", "x.tsv"], "calibrate is x.tsv, allowed: only with precision int8 or auto"),
        (
            ["m.xml", "--rest", "fp32"],
            "rest is fp32, allowed: only with precision int8 or auto, for OpenVINO",
        ),
        (["m.onnx", "--precision", "int8", "--rest", "bf16"], "rest is bf16, allowed: only with"),
        (["m.xml", "--precision", "int8", "--rest", "int4"], "rest is 'int4', allowed: fp32, bf16, auto"),
        (["m.xml", "--check", "x.tsv"], "x.tsv: not readable as a manifest"),
    ],
)
def test_what_is_refused(tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(PRUNED), *arguments]) == 2
    assert re.search(said, capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == []


def test_files_are_not_replaced_unless_asked(files, tmp_path, manifest):
    out = tmp_path / "model.onnx"
    out.write_text("mine")
    config = ExportConfig(format="onnx", check=manifest, threads=1)
    with pytest.raises(CheckpointError, match=r"model\.onnx: exists already"):
        export_model(PRUNED, out, config)
    assert out.read_text() == "mine"
    export_model(PRUNED, out, config, overwrite=True)
    assert out.read_bytes()[:4] != b"mine"


@pytest.mark.parametrize(
    ("module", "extra"), [("onnx", "onnx"), ("onnxruntime", "onnx"), ("openvino", "openvino")]
)
def test_a_missing_package_is_named(tmp_path, monkeypatch, capsys, files, module, extra):
    def blocked(name):
        if name == module:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return importlib.import_module(name)

    monkeypatch.setattr("s3prl_dphubert.export.backends.import_module", blocked)
    suffix = ".onnx" if extra == "onnx" else ".xml"
    assert main(["export", str(PRUNED), str(tmp_path / f"m{suffix}"), "--format", extra]) == 2
    assert f"pip install 's3prl-dphubert[{extra}]'" in capsys.readouterr().err
    if module != "onnx":
        with pytest.raises(ExportError, match=f"{module} cannot be imported"):
            load_exported(files[extra][0])


def test_signals_are_handled_when_models_are_gone(files):
    """In a process of its own, which OpenVINO would end."""
    script = (
        "import signal, subprocess, sys\n"
        "from s3prl_dphubert.export import load_exported\n"
        "heard = []\n"
        "signal.signal(signal.SIGCHLD, lambda *_: heard.append(1))\n"
        "first, second = load_exported(sys.argv[1]), load_exported(sys.argv[1])\n"
        "del first\n"
        "del second\n"
        "subprocess.run([sys.executable, '-c', ''], check=True)\n"
        "print(len(heard) > 0)\n"
    )
    assert printed(script, files["openvino"][0]) == "True\n"


def test_files_that_cannot_be_run(tmp_path, files):
    foreign = onnx.load(files["onnx"][0])
    del foreign.metadata_props[:]
    onnx.save(foreign, tmp_path / "foreign.onnx")
    newer = onnx.load(files["onnx"][0])
    facts = json.loads(newer.metadata_props[0].value) | {"format_version": 4}
    newer.metadata_props[0].value = json.dumps(facts)
    onnx.save(newer, tmp_path / "newer.onnx")
    newer.metadata_props[0].value = "{"
    onnx.save(newer, tmp_path / "torn.onnx")
    (tmp_path / "damaged.onnx").write_bytes(files["onnx"][0].read_bytes()[:3000])
    (tmp_path / "damaged.xml").write_text("<net>")
    (tmp_path / "damaged.bin").write_bytes(b"")
    (tmp_path / "alone.xml").write_text("<net/>")
    flipped = {"flipped.onnx": files["onnx"][0], "flipped.xml": files["openvino"][0]}
    for name, source in flipped.items():  # a bit of the metadata, which is UTF-8 no more
        (tmp_path / name).write_bytes(source.read_bytes().replace(b"format_version", b"form\xe1t_version"))
    shutil.copy(files["openvino"][0].with_suffix(".bin"), tmp_path / "flipped.bin")
    newer.metadata_props[0].value = "[" * 200_000
    onnx.save(newer, tmp_path / "deep.onnx")
    for name, said in (
        ("flipped.onnx", "cannot be read|is damaged"),
        ("flipped.xml", "cannot be read|is damaged"),
        ("deep.onnx", "its metadata is damaged"),
        ("foreign.onnx", "not written by `s3prl-dphubert export`"),
        ("newer.onnx", "format_version is 4, allowed: 3; export the model again"),
        ("torn.onnx", "its metadata is damaged"),
        ("damaged.onnx", "cannot be read"),
        ("damaged.xml", "cannot be read"),
        ("alone.xml", r"alone\.bin: no such file"),
        ("absent.onnx", "no such file"),
        ("model.tflite", r"suffix is '\.tflite', allowed: \.onnx, \.xml"),
    ):
        with pytest.raises(CheckpointError, match=said):
            load_exported(tmp_path / name)
    with pytest.raises(ConfigError, match="threads is 0, allowed: 1 or more"):
        load_exported(files["onnx"][0], threads=0)
    with pytest.raises(ConfigError, match=r"precision is 'bf16', allowed for \.onnx files: none"):
        dphubert_local(files["onnx"][0], precision="bf16")


def test_a_file_runs_where_nothing_but_its_runtime_is(files):
    """Loading a file imports neither onnx nor the other runtime."""
    script = (
        "import sys\n"
        "class Blocked:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name in ('onnx', 'openvino', 'ml_dtypes'):\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Blocked())\n"
        "import torch\n"
        "from s3prl_dphubert.export import load_exported\n"
        "print(len(load_exported(sys.argv[1]).extract_features(torch.zeros(1, 400))[0]))\n"
    )
    assert int(printed(script, files["onnx"][0])) == load_model(PRUNED).config.num_layers + 1
