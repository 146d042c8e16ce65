"""Metadata that the Hub lists of a model: licence, base model, corpora, languages and scores."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError, ConfigError, shown
from ..utils.config_io import type_faults
from . import hub
from .directory import CARD
from .teachers import TEACHERS

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

OURS, REMOTE_CODE = "s3prl-dphubert", "custom_code"  # tags
TAGS = (OURS, "speech", "self-supervised-learning", "compression", "pruning", "distillation")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_FORMS = {
    "license": (re.compile(r"[a-z0-9][a-z0-9.-]*"), "an id of the Hub such as apache-2.0, or other"),
    "base_model": (_HUB_ID, "user/repo"),
    "datasets": (_HUB_ID, "user/dataset"),
    "language": (re.compile(r"[a-z]{2,3}(-[A-Za-z]+)?|multilingual"), "ISO 639 codes such as en"),
}


@dataclass(frozen=True)
class CardMetadata:
    """Fields of a model card that do not follow from the weights.

    Args:
        license: licence of the weights as the Hub names it (``apache-2.0``, ``cc-by-sa-3.0``, ``other``);
            by default that of the teacher, if it is known.
        base_model: Hub id of the teacher; by default the teacher itself if it is on the Hub, or that
            teacher's own base model.
        datasets: Hub ids of the corpora of the compression (``openslr/librispeech_asr``).
        language: ISO 639 codes of the speech in them.

    Raises:
        ConfigError: a value has another form; all are listed.
    """

    license: str | None = None
    base_model: str | None = None
    datasets: tuple[str, ...] = ()
    language: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("datasets", "language"):
            if isinstance(getattr(self, name), list | tuple):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        ConfigError.raise_for("card", type_faults(self) or self._faults())

    def _faults(self) -> Iterator[str]:
        for name, (form, allowed) in _FORMS.items():
            value = getattr(self, name)
            for each in [value] if isinstance(value, str) else value or ():
                if not form.fullmatch(each):
                    yield f"{name} is {shown(each)}, allowed: {allowed}"

    def of(self, teacher: str | Path) -> CardMetadata:
        """Return the metadata with the licence and base model of a teacher where they are not given."""
        inherited = teacher_metadata(teacher)
        values = {name: getattr(self, name) or getattr(inherited, name) for name in ("license", "base_model")}
        return replace(self, **values)


def teacher_metadata(teacher: str | Path) -> CardMetadata:
    """Return the licence of a teacher's weights and its Hub id, as far as they are stated.

    A published teacher's are known. A directory or a repository on the Hub states them in its README.md; what
    is compressed again has the base model of the first teacher.

    Args:
        teacher: source of the model, as for :func:`~s3prl_dphubert.load_model`.
    """
    name, path = str(teacher), Path(teacher).expanduser()
    if name in TEACHERS and not (isinstance(teacher, Path) and path.exists()):
        known = TEACHERS[name]
        return CardMetadata(_hub_license(known.license), known.repository)
    if path.is_dir():
        return _stated(path / CARD, "")
    parsed = None if path.exists() or hub.is_url(name) else hub.parse_hub_id(name)
    if parsed is None:
        return CardMetadata()
    repository, _ = parsed
    card = None
    with suppress(CheckpointError):
        card = repository.find(CARD)
    return _stated(card, repository.name)


def hub_data(
    metadata: CardMetadata, name: str, results: Sequence[Any] = (), remote_code: bool = False
) -> ModelCardData:
    """Return the metadata as the Hub reads it.

    Args:
        metadata: of the model.
        name: name of the model, for its scores.
        results: scores, as ``huggingface_hub.EvalResult``.
        remote_code: whether transformers needs the code in the folder.
    """
    from huggingface_hub import ModelCardData

    optional: dict[str, Any] = {}
    if metadata.base_model:
        optional |= {"base_model": metadata.base_model, "base_model_relation": "finetune"}
    if results:
        optional |= {"model_name": name, "eval_results": list(results)}
    return ModelCardData(
        license=metadata.license,
        datasets=list(metadata.datasets) or None,
        language=list(metadata.language) or None,
        pipeline_tag="feature-extraction",
        library_name="transformers",
        tags=[*TAGS, REMOTE_CODE] if remote_code else list(TAGS),
        **optional,
    )


def has_block(text: str) -> bool:
    """Return whether a card begins with a block of metadata; of one without, the Hub's client warns."""
    return text.lstrip().startswith("---")


def _hub_license(text: str) -> str:
    """Return a licence's name (``CC BY-SA 3.0``) as the Hub writes it (``cc-by-sa-3.0``)."""
    return text.lower().replace(" ", "-")


def _stated(card: Path | None, repository: str) -> CardMetadata:
    """Return what a card states; values of another form than the Hub's are left out."""
    from huggingface_hub import ModelCard

    data: Any = {}
    with suppress(Exception):  # the client raises whatever malformed metadata provokes
        text = card.read_text(encoding="utf8") if card is not None else ""
        if has_block(text):
            data = ModelCard(text, ignore_metadata_errors=True).data
    values: dict[str, Any] = {}
    for name in ("license", "base_model"):
        value = data.get(name)
        value = value[0] if isinstance(value, list) and len(value) == 1 else value
        form, _ = _FORMS[name]
        values[name] = value if isinstance(value, str) and form.fullmatch(value) else None
    is_ours = OURS in (data.get("tags") or ())
    if repository and not (is_ours and values["base_model"]):
        values["base_model"] = repository
    return CardMetadata(**values)
