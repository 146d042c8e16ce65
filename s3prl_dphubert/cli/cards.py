"""The command ``card``, and the options for model cards that other commands share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..checkpoints.card_metadata import CardMetadata


def add(commands: Any) -> None:
    """Add the command of this module to a parser."""
    card = commands.add_parser("card", help="state licence, origin and scores in the card of a saved model")
    card.set_defaults(run=_card)
    card.add_argument("model", metavar="FOLDER", type=Path, help="checkpoint directory")
    add_options(card)
    scores = "folders of `superb run`, whose scores replace those of the card"
    card.add_argument("--scores", nargs="+", type=Path, metavar="RUN", help=scores)
    card.add_argument("--upstream", help="name of the model in those folders, if they hold several")
    card.add_argument("--benchmark", default="", help="the one to take scores of, if they hold several")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options from which :func:`metadata` makes the Hub's metadata."""
    license = "licence of the weights: an id of the Hub such as apache-2.0 (default: the source's, if known)"
    parser.add_argument("--license", help=license)
    base = "model that it was made from (default: the source, if it is on the Hub)"
    parser.add_argument("--base-model", metavar="USER/REPO", help=base)
    corpora = "corpora that it was made with, on the Hub (openslr/librispeech_asr)"
    parser.add_argument("--datasets", nargs="+", default=(), metavar="DATASET", help=corpora)
    parser.add_argument(
        "--language", nargs="+", default=(), metavar="CODE", help="of the speech in them (en)"
    )


def metadata(arguments: argparse.Namespace) -> CardMetadata:
    """Return what the options of :func:`add_options` state.

    Raises:
        ConfigError: a value has another form.
    """
    from ..checkpoints.card_metadata import CardMetadata

    given = arguments
    return CardMetadata(given.license, given.base_model, tuple(given.datasets), tuple(given.language))


def _card(arguments: argparse.Namespace) -> None:
    from ..checkpoints.model_card import update_card

    stated = metadata(arguments)
    scores = None
    if arguments.scores:
        from ..superb.scoring.card_scores import card_scores

        scores = card_scores(arguments.scores, arguments.upstream, arguments.benchmark)
    print(update_card(arguments.model, stated, scores))
