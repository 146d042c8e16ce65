"""Tasks on the miniature corpora: what s3prl is started with and what it leaves.

The package on PyPI ships no configuration of any task. Those of the ten SUPERB tasks have the published
models and their keys, and few steps of few items. Speech enhancement and translation take the recipes that
ship, prepared as the runner prepares them, with small models and few steps laid over.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from s3prl_dphubert.superb import prepare, recipe
from s3prl_dphubert.utils import resources
from s3prl_dphubert.utils.config_io import merge
from tests.helpers import corpora, sg_corpora

RNN = {
    "select": "RNNs",
    "RNNs": {
        "total_rate": -1,
        "module": "LSTM",
        "bidirection": True,
        "dim": [16, 16],
        "dropout": [0.2, 0.2],
        "layer_norm": [False, False],
        "proj": [False, False],
        "sample_rate": [1, 1],
        "sample_style": "concat",
    },
}
POOLED = {"projector_dim": 16, "select": "UtteranceLevel", "UtteranceLevel": {"pooling": "MeanPooling"}}
SPECAUG = {
    "adaptive": False,
    "adaptive_number_ratio": 0.04,
    "adaptive_size_ratio": 0.04,
    "max_n_time_masks": 20,
    "apply_time_warp": True,
    "apply_time_mask": True,
    "apply_freq_mask": True,
    "time_warp_window": 5,
    "time_mask_width_range": [0, 4],
    "freq_mask_width_range": [0, 5],
    "num_freq_mask": 2,
    "num_time_mask": 2,
}


@dataclass(frozen=True)
class Task:
    """One task on its miniature corpus.

    Attributes:
        downstream: ``-d``.
        config: what ``-c`` names.
        scores: what an evaluation prints before a number.
        files: what an evaluation leaves in the experiment's folder.
        split: ``-t``.
    """

    downstream: str
    config: dict[str, Any]
    scores: tuple[str, ...]
    files: tuple[str, ...]
    split: str = field(default="test")


def configuration(expert: dict[str, Any], evaluated=("dev",), **more: Any) -> dict[str, Any]:
    """A whole configuration of two steps, logged, evaluated and saved after the second."""
    runner = {
        "total_steps": 2,
        "gradient_clipping": 1,
        "gradient_accumulate_steps": 1,
        "log_step": 1,
        "eval_step": 2,
        "save_step": 2,
        "max_keep": 3,
        "eval_dataloaders": list(evaluated),
    }
    optimizer = {"name": "TorchOptim", "torch_optim_name": "Adam", "lr": 1e-3}
    return {"runner": runner, "optimizer": optimizer, "downstream_expert": expert, **more}


def ks(root: Path) -> Task:
    """Keyword spotting."""
    corpus = corpora.speech_commands(root)
    data = {
        "speech_commands_root": str(corpus["train"]),
        "speech_commands_test_root": str(corpus["test"]),
        "num_workers": 0,
        "batch_size": 8,
    }
    config = configuration({"datarc": data, "modelrc": POOLED}, ("dev", "test"))
    return Task("speech_commands", config, ("test acc: ",), ("test_predict.txt", "test_truth.txt", "log.log"))


def sid(root: Path) -> Task:
    """Speaker identification."""
    corpus = corpora.voxceleb(root)
    data = {
        "file_path": str(corpus["root"]),
        "meta_data": str(corpus["identify"]),
        "num_workers": 0,
        "train_batch_size": 4,
        "eval_batch_size": 1,
        "max_timestep": 16000,
    }
    config = configuration({"datarc": data, "modelrc": POOLED})
    return Task("voxceleb1", config, ("test acc: ",), ("test_predict.txt", "test_truth.txt", "log.log"))


def er(root: Path) -> Task:
    """Emotion recognition."""
    corpus = corpora.iemocap(root)
    data = {
        "root": str(corpus["root"]),
        "meta_data": str(corpus["meta_data"]),
        "test_fold": "fold1",
        "pre_load": True,
        "train_batch_size": 4,
        "eval_batch_size": 4,
        "num_workers": 0,
        "valid_ratio": 0.2,
    }
    config = configuration({"datarc": data, "modelrc": POOLED})
    return Task("emotion", config, ("test acc: ",), ("test_fold1_predict.txt", "log.log"))


def asr(root: Path) -> Task:
    """Speech recognition."""
    corpus = corpora.librispeech(root)
    data = {
        "train": ["train-clean-100"],
        "dev-clean": ["dev-clean"],
        "test-clean": ["test-clean"],
        "num_workers": 0,
        "train_batch_size": 4,
        "batch_size": 4,
        "eval_batch_size": 1,
        "libri_root": str(corpus["root"]),
        "bucket_file": str(corpus["buckets"]),
        "dict_path": str(corpus["letters"]),
        "zero_infinity": True,
        "decoder_args": {"decoder_type": "None", "nbest": 1, "criterion": "ctc"},
    }
    model = {"project_dim": 16, **RNN}
    config = configuration({"datarc": data, "modelrc": model}, ("dev-clean",), specaug=SPECAUG)
    scores = tuple(f"test-clean {name}: " for name in ("loss", "uer", "wer"))
    return Task("asr", config, scores, ("test-clean-noLM-hyp.ark", "test-clean-noLM-ref.ark"), "test-clean")


def ic(root: Path) -> Task:
    """Intent classification."""
    data = {
        "file_path": str(corpora.fluent_commands(root)),
        "num_workers": 0,
        "train_batch_size": 4,
        "eval_batch_size": 4,
    }
    config = configuration({"datarc": data, "modelrc": POOLED})
    return Task("fluent_commands", config, ("test acc: ",), ("test_predict.csv", "test_truth.csv", "log.log"))


def sd(root: Path) -> Task:
    """Speaker diarization."""
    folders = corpora.diarization(root)
    expert = {
        "datarc": {
            "chunk_size": 100,
            "subsampling": 1,
            "label_delay": 0,
            "num_speakers": 2,
            "rate": 16000,
            "frame_shift": None,
        },
        "loaderrc": {
            "num_workers": 0,
            "train_batchsize": 4,
            "eval_batchsize": 1,
            **{f"{split}_dir": str(folder) for split, folder in folders.items()},
        },
        "scorerc": {"save_predictions": True},
        "modelrc": {"rnn_layers": 1, "hidden_size": 16},
    }
    files = ("scoring/predictions/mix0.h5", "scoring/predictions/mix1.h5", "frame_shift")
    return Task("diarization", configuration(expert), ("mode test acc ",), files)


def pr(root: Path) -> Task:
    """Phone recognition."""
    corpus = corpora.librispeech(root)
    expert = {
        "corpus": {
            "name": "libriphone",
            "path": str(corpus["root"]),
            "lexicon": [str(corpus["lexicon"])],
            "train": ["train-clean-100"],
            "dev": ["dev-clean"],
            "test": ["test-clean"],
            "bucketing": True,
            "batch_size": 4,
            "num_workers": 0,
        },
        "text": {"mode": "word", "vocab_file": str(corpus["phones"])},
        "model": {"project_dim": 16, "zero_infinity": True, "select": "FrameLevel"},
        "save_best_on": ["dev"],
        "metric_higher_better": False,
        "metric": ["per"],
    }
    scores = ("test loss: ", "test per: ")
    return Task("ctc", configuration(expert), scores, ("test-hyp.ark", "test-ref.ark"))


def sf(root: Path) -> Task:
    """Slot filling."""
    corpus = corpora.snips(root)
    metrics = ["slot_type_f1", "slot_value_cer", "slot_value_wer", "slot_edit_f1_full", "wer", "cer"]
    expert = {
        "corpus": {
            "name": "snips",
            "path": str(corpus["root"]),
            "train": ["train"],
            "dev": ["valid"],
            "test": ["test"],
            "bucketing": True,
            "batch_size": 4,
            "train_speakers": ["Ivy"],
            "valid_speakers": ["Amy"],
            "test_speakers": ["Brian"],
            "num_workers": 0,
        },
        "text": {
            "mode": "character-slot",
            "vocab_file": str(corpus["letters"]),
            "slots_file": str(corpus["slots"]),
        },
        "model": {"project_dim": 16, "zero_infinity": True, **RNN},
        "save_best_on": ["dev"],
        "metric_higher_better": True,
        "metric": metrics,
    }
    scores = tuple(f"test {name}: " for name in metrics)
    return Task("ctc", configuration(expert, specaug=SPECAUG), scores, ("test-hyp.ark", "test-ref.ark"))


def asv(root: Path) -> Task:
    """Speaker verification."""
    corpus = corpora.voxceleb(root)
    expert = {
        "datarc": {
            "vad_config": {"min_sec": 12000},
            "file_path": str(corpus["root"]),
            "train_meta_data": str(corpus["identify"]),
            "dev_meta_data": str(corpus["verify"]),
            "test_meta_data": str(corpus["verify"]),
            "max_timestep": 16000,
            "train_batch_size": 4,
            "eval_batch_size": 1,
            "num_workers": 0,
        },
        "modelrc": {
            "module": "XVector",
            "input_dim": 16,
            "agg_module": "SP",
            "utter_module": "UtteranceExtractor",
            "module_config": {"XVector": {"agg_dim": 24, "dropout_p": 0.0, "batch_norm": False}},
            "ObjectiveLoss": "AMSoftmaxLoss",
            "LossConfig": {"AMSoftmaxLoss": {"s": 30.0, "m": 0.4}},
        },
    }
    config = configuration(expert, ())
    return Task("sv_voxceleb1", config, ("sv-voxceleb1/test-EER: ",), ("test_predict.txt",))


def qbe(root: Path) -> Task:
    """Query by example; there is nothing to train."""
    expert = {
        "max_workers": 1,
        "feature_normalization": True,
        "silence_frame": None,
        "datarc": {"dataset_root": str(corpora.quesst(root)), "num_workers": 0, "batch_size": 1},
        "dtwrc": {
            "dist_method": "cosine_exp",
            "minmax_norm": True,
            "step_pattern": "asymmetric",
            "subsequence": True,
        },
    }
    config = {"runner": {}, "downstream_expert": expert}
    return Task("quesst14_dtw", config, (), ("benchmark.stdlist.xml",))


def prepared(task: str, data: Path, **expert: Any) -> dict[str, Any]:
    """The shipped configuration of a task on data that are prepared for it.

    Args:
        task: folder of its recipe.
        data: folder of the corpora.
        expert: values laid over ``downstream_expert``.
    """
    shipped = recipe.load(resources.find("downstream_recipes") / task)
    place = data.parent / "prepared"
    place.mkdir(exist_ok=True)
    for step in shipped.needs.prepare:
        prepare.STEPS[step](data, place, shipped.config("", data, place))
    config = shipped.config("", data, place)
    config.pop("scheduler", None)
    runner = {"total_steps": 2, "log_step": 1, "eval_step": 2, "save_step": 2, "max_keep": 3}
    return merge(config, {"runner": runner, "downstream_expert": expert})


def se(root: Path) -> Task:
    """Speech enhancement."""
    sg_corpora.voicebank(root / "VoiceBank-DEMAND")
    small = {"num_workers": 0, "train_batchsize": 2}
    config = prepared("se", root, loaderrc=small, modelrc={"rnn_layers": 1, "hidden_size": 16})
    scores = tuple(f"Average {name} of 2 utts is " for name in ("si_sdr", "stoi", "pesq"))
    return Task("enhancement_stft", config, scores, ("test_metrics.txt",))


def st(root: Path) -> Task:
    """Speech translation, which needs fairseq."""
    sg_corpora.covost(root)
    model = {"encoder_embed_dim": 16, "encoder_ffn_embed_dim": 16, "encoder_attention_heads": 2}
    model |= {name.replace("encoder", "decoder"): value for name, value in model.items()}
    sizes = {"encoder_layers": 1, "decoder_layers": 1, "conv_channels": 16}
    search = {"beam": 2, "max_len_b": 5}
    config = prepared("st", root, modelrc=model | sizes, generatorrc=search, datarc={"num_workers": 0})
    config["runner"]["gradient_accumulate_steps"] = 1
    return Task("speech_translation", config, ("BLEU = ",), ("output-st-test.tsv",))


TASKS: dict[str, Callable[[Path], Task]] = {
    build.__name__: build for build in (ks, sid, er, asr, ic, sd, pr, sf, asv, qbe)
}
GENERATIVE: dict[str, Callable[[Path], Task]] = {"se": se, "st": st}
"""Tasks of SUPERB-SG that are trained without the runner."""
