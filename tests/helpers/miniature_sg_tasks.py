"""SUPERB-SG's tasks and other languages on the miniature corpora: what s3prl is started with.

The configurations are the recipes that ship, prepared as the runner prepares them, with small models and
few steps laid over.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from s3prl_dphubert.superb import prepare, recipe
from s3prl_dphubert.utils import resources
from s3prl_dphubert.utils.config_io import merge
from tests.helpers import miniature_sg
from tests.helpers.miniature_tasks import Task

RUNNER = {"total_steps": 2, "log_step": 1, "eval_step": 2, "save_step": 2, "max_keep": 3}
RNN = {"rnn_layers": 1, "hidden_size": 16}


def prepared(name: str, data: Path, **expert: Any) -> dict[str, Any]:
    """The shipped configuration of a part of a task on data that are prepared for it.

    Args:
        name: ``task`` or ``task/part``.
        data: folder of the corpora.
        expert: values laid over ``downstream_expert``.
    """
    task, _, part = name.partition("/")
    found = recipe.load(resources.find("downstream_recipes") / task)
    place = data.parent / "prepared"
    place.mkdir(exist_ok=True)
    for step in found.needs.prepare:
        prepare.STEPS[step](data, place, found.config(part, data, place))
    config = found.config(part, data, place)
    config.pop("scheduler", None)
    return merge(config, {"runner": RUNNER, "downstream_expert": expert})


def se(root: Path) -> Task:
    """Speech enhancement."""
    miniature_sg.voicebank(root / "VoiceBank-DEMAND")
    small = {"num_workers": 0, "train_batchsize": 2}
    config = prepared("se", root, loaderrc=small, modelrc=RNN)
    scores = tuple(f"Average {name} of 2 utts is " for name in ("si_sdr", "stoi", "pesq"))
    return Task("enhancement_stft", config, scores, ("test_metrics.txt",))


def ss(root: Path) -> Task:
    """Source separation."""
    miniature_sg.libri2mix(root / "Libri2Mix")
    small = {"num_workers": 0, "train_batchsize": 2}
    config = prepared("ss", root, loaderrc=small, modelrc=RNN)
    scores = tuple(f"Average {name} of 2 utts: " for name in ("si_sdr", "stoi", "pesq"))
    return Task("separation_stft", config, scores, ("test_metrics.txt",))


def vc(root: Path) -> Task:
    """Voice conversion."""
    miniature_sg.vcc2020(root / "VCC2020")
    data = {"num_workers": 0, "train_batch_size": 2, "eval_batch_size": 2, "fbank_config": {"gl_iters": 2}}
    model = {"hidden_dim": 16, "prenet_dim": 8, "lstmp_proj_dim": 8}
    config = prepared("vc/TEF1", root, datarc=data, modelrc=model)
    return Task("a2o-vc-vcc2020", config, ("test loss: ",), ("0/test/wav/SEF1_E30001.wav",))


def es(root: Path) -> Task:
    """Spanish, the first part of OOD-ASR."""
    miniature_sg.common_voice(root / "cv-corpus-7.0-2021-07-21")
    miniature_sg.sbcsae(root / "SBCSAE")
    rnns = {"dim": [16, 16]}
    config = prepared(
        "ood-asr/es",
        root,
        corpus={"batch_size": 2, "num_workers": 0},
        model={"project_dim": 16, "RNNs": rnns},
    )
    config["specaug"] |= {"time_mask_width_range": [0, 4], "freq_mask_width_range": [0, 5]}
    return Task("ctc", config, ("test loss: ", "test wer: "), ("test-hyp.ark", "test-ref.ark"))


def st(root: Path) -> Task:
    """Speech translation, which needs fairseq."""
    miniature_sg.covost(root)
    model = {"encoder_embed_dim": 16, "encoder_ffn_embed_dim": 16, "encoder_attention_heads": 2}
    model |= {name.replace("encoder", "decoder"): value for name, value in model.items()}
    sizes = {"encoder_layers": 1, "decoder_layers": 1, "conv_channels": 16}
    search = {"beam": 2, "max_len_b": 5}
    config = prepared("st", root, modelrc=model | sizes, generatorrc=search, datarc={"num_workers": 0})
    config["runner"]["gradient_accumulate_steps"] = 1
    return Task("speech_translation", config, ("BLEU = ",), ("output-st-test.tsv",))


TASKS: dict[str, Callable[[Path], Task]] = {build.__name__: build for build in (se, ss, vc, es, st)}
