"""The table of tasks. A new SUPERB task is one row here and one folder in ``downstream_recipes``.

Reference points and the rule of the score are the leaderboard's (the challenge paper, 2110.08583,
and the public source of the site); what each evaluation prints is s3prl 0.4.18's.
"""

from __future__ import annotations

from ...errors import ResultError
from ..metrics.parsers import Conversion, Detection, Diarization, Printed, WordErrors, Written
from .spec import EXTRA, HIGHER, LOWER, SUPERB, SUPERB_SG, Metric, Part, Prediction, Task

_LIBRISPEECH = "LibriSpeech test-clean"
_FOLD_SIZES = (1085, 1023, 1151, 1031, 1241)
_FOLDS = tuple(f"fold{number}" for number in range(1, 6))
_SPEAKERS = ("TEF1", "TEF2", "TEM1", "TEM2")


def _accuracy(fbank: float, sota: float) -> Metric:
    """Of the classifiers, which all print it the same way and log it in the same file."""
    read = Printed("test acc: {}", 100, log="log.log", log_line="test at step *: {}")
    return Metric("acc", "Acc", "%", HIGHER, read, fbank, sota)


def _mean(name: str, of: str, unit: str, scale: float, fbank: float, sota: float) -> Metric:
    """Of the test set's mean that enhancement and separation write."""
    return Metric(
        name,
        name.upper().replace("_", "-"),
        unit,
        HIGHER,
        Written("test_metrics.txt", of, scale),
        fbank,
        sota,
    )


def _converted(column: int) -> Printed:
    """One of the numbers that s3prl's ``evaluate.py`` prints and logs beside what it scores."""
    line = "Mean MCD, f0RMSE, f0CORR, DDUR, CER, WER, accept rate:" + " *" * column + " {}"
    return Printed(line, log="*/test/*wav/obj.log")


def _words(part: str, of: str = "wer") -> Metric:
    """Error rate of a language or style."""
    name = f"{of}_{part}"
    return Metric(name, f"{of.upper()} {part}", "%", LOWER, Printed(f"test {of}: {{}}", 100), part=part)


TASKS: tuple[Task, ...] = (
    Task(
        "PR",
        "phoneme recognition",
        SUPERB,
        "ctc",
        (Metric("per", "PER", "%", LOWER, Printed("test per: {}", 100), 82.01, 3.53),),
        (Prediction("pr_public/predict.ark", "test-hyp.ark", "texts", count=2620, origin=_LIBRISPEECH),),
        parts=(Part(config="libriphone.yaml"),),
    ),
    Task(
        "ASR",
        "speech recognition",
        SUPERB,
        "asr",
        (
            Metric("wer", "WER", "%", LOWER, Printed("test-clean wer: {}"), 23.18, 3.62),
            Metric("wer_lm", "WER with LM", "%", LOWER, WordErrors("test-clean-LM"), optional=True),
        ),
        (
            Prediction(
                "asr_public/predict.ark",
                "test-clean-noLM-hyp.ark",
                "texts",
                count=2620,
                origin=_LIBRISPEECH,
            ),
            Prediction(
                "asr_lm_public/predict.ark",
                "test-clean-LM-hyp.ark",
                "texts",
                count=2620,
                origin=_LIBRISPEECH,
                optional=True,
            ),
        ),
        best="dev-clean-best.ckpt",
        split="test-clean",
    ),
    Task(
        "KS",
        "keyword spotting",
        SUPERB,
        "speech_commands",
        (_accuracy(41.3826674, 96.66),),
        (
            Prediction(
                "ks_public/predict.txt",
                "test_predict.txt",
                "labels",
                count=3081,
                origin="test set of Speech Commands 0.01",
            ),
        ),
    ),
    Task(
        "QbE",
        "query by example",
        SUPERB,
        "quesst14_dtw",
        (Metric("mtwv", "MTWV", "x100", HIGHER, Detection(), 0.58, 7.36),),
        (Prediction("qbe_public/benchmark.stdlist.xml", "benchmark.stdlist.xml", "detections"),),
        best="",
        needs="folder scoring/groundtruth_quesst14_eval of QUESST 2014",
    ),
    Task(
        "SID",
        "speaker identification",
        SUPERB,
        "voxceleb1",
        (_accuracy(20.058174, 90.3),),
        (
            Prediction(
                "sid_public/predict.txt",
                "test_predict.txt",
                "labels",
                count=8251,
                origin="identification split of VoxCeleb1",
            ),
        ),
    ),
    Task(
        "ASV",
        "speaker verification",
        SUPERB,
        "sv_voxceleb1",
        (Metric("eer", "EER", "%", LOWER, Printed("sv-voxceleb1/test-EER: {}", 100), 9.56, 5.11),),
        (
            Prediction(
                "sv_public/predict.txt",
                "test_predict.txt",
                "scores",
                count=37720,
                origin="voxceleb1_test_v2.txt",
            ),
        ),
        best="states-*.ckpt",
    ),
    Task(
        "SD",
        "speaker diarization",
        SUPERB,
        "diarization",
        (Metric("der", "DER", "%", LOWER, Diarization(), 10.05, 5.62),),
        (
            Prediction(
                "sd_public/scoring/predictions",
                "scoring/predictions",
                "activities",
                count=3000,
                origin="test mixtures of Libri2Mix",
            ),
            Prediction("sd_public/frame_shift", "frame_shift", "number"),
        ),
        best="best-states-dev.ckpt",
        needs="RTTM of the test set",
    ),
    Task(
        "ER",
        "emotion recognition",
        SUPERB,
        "emotion",
        (_accuracy(48.23672168, 67.62),),
        tuple(
            Prediction(
                f"er_{fold}_public/predict.txt",
                f"test_{fold}_predict.txt",
                "labels",
                part=fold,
                count=size,
                origin=f"s3prl's list of IEMOCAP session {fold[-1]}",
            )
            for fold, size in zip(_FOLDS, _FOLD_SIZES, strict=True)
        ),
        parts=tuple(
            Part(fold, override=f"config.downstream_expert.datarc.test_fold={fold}") for fold in _FOLDS
        ),
    ),
    Task(
        "IC",
        "intent classification",
        SUPERB,
        "fluent_commands",
        (_accuracy(9.649354219, 98.76),),
        (
            Prediction(
                "ic_public/predict.csv",
                "test_predict.csv",
                "intents",
                count=3793,
                origin="test_data.csv of Fluent Speech Commands",
            ),
        ),
    ),
    Task(
        "SF",
        "slot filling",
        SUPERB,
        "ctc",
        (
            Metric("f1", "F1", "%", HIGHER, Printed("test slot_type_f1: {}", 100), 69.64, 89.81),
            Metric("cer", "CER", "%", LOWER, Printed("test slot_value_cer: {}", 100), 52.94, 21.76),
        ),
        (Prediction("sf_public/predict.ark", "test-hyp.ark", "texts"),),
        parts=(Part(config="snips.yaml"),),
    ),
    Task(
        "SE",
        "speech enhancement",
        SUPERB_SG,
        "enhancement_stft",  # enhancement_stft2 is better and not comparable
        (_mean("pesq", "pesq", "", 1, 2.55, 2.64), _mean("stoi", "stoi", "%", 100, 93.6, 94.2)),
        (Prediction("se_public/metrics.txt", "test_metrics.txt", "means"),),
        parts=(Part(config="configs/cfg_voicebank.yaml"),),
        best="best-states-dev.ckpt",
    ),
    Task(
        "SS",
        "source separation",
        SUPERB_SG,
        "separation_stft",  # separation_stft2 is better and not comparable
        (_mean("si_sdri", "si_sdr", "dB", 1, 9.2341, 10.4514),),
        (Prediction("ss_public/metrics.txt", "test_metrics.txt", "means"),),
        parts=(Part(config="configs/cfg.yaml"),),
        best="best-states-dev.ckpt",
    ),
    Task(
        "ST",
        "speech translation",
        SUPERB_SG,
        "speech_translation",
        (Metric("bleu", "BLEU", "", HIGHER, Printed("BLEU = {}"), 2.32, 20.01),),
        (Prediction("st_public/predict.tsv", "output-st-test.tsv", "translations"),),
    ),
    Task(
        "VC",
        "voice conversion",
        SUPERB_SG,
        "a2o-vc-vcc2020",
        (
            Metric("mcd", "MCD", "dB", LOWER, Conversion(_converted(0))),
            Metric("wer", "WER", "%", LOWER, _converted(5), optional=True),
            Metric("asv", "accepted", "%", HIGHER, _converted(6), optional=True),
        ),
        parts=tuple(
            Part(speaker, override=f"config.downstream_expert.trgspk={speaker}") for speaker in _SPEAKERS
        ),
        best="states-*.ckpt",
        needs="the folder vcc2020 that preparation made, of the target speakers",
    ),
    Task(
        "OOD-ASR",
        "recognition of other languages and of spontaneous speech",
        EXTRA,
        "ctc",
        (_words("es"), _words("ar"), _words("zh", "cer"), _words("spon")),
        parts=(
            *(Part(language, f"cv_config/cv_{language}.yaml") for language in ("es", "ar", "zh")),
            Part("spon", "sbcsae.yaml"),
        ),
    ),
)

CORE = tuple(task for task in TASKS if task.track == SUPERB)
"""The ten tasks that the SUPERB score is the mean of."""


def find(name: str) -> Task:
    """The task of that name, in whatever case.

    Raises:
        ResultError: there is none; the message lists them.
    """
    for task in TASKS:
        if task.name.lower() == name.lower():
            return task
    raise ResultError(f"task is {name!r}, allowed: {', '.join(task.name for task in TASKS)}")
