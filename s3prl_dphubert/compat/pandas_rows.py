"""Iteration over pandas rows, which s3prl does by a method that pandas 2 removed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import DataError
from .patch import Patch


def dataframe_to_datapoints(df, unique_name_fn: Callable[[dict[str, Any]], str]) -> dict[str, dict[str, Any]]:
    """Return the rows of a data frame under their unique names.

    Raises:
        DataError: two rows have the same name.
    """
    rows = df.to_dict("records")
    points = {unique_name_fn(row): row for row in rows}
    if len(points) < len(rows):
        raise DataError(f"{len(rows)} rows have {len(points)} names, allowed: a unique name per row")
    return points


def _use_records(base: Any) -> None:
    base.Corpus.dataframe_to_datapoints = staticmethod(dataframe_to_datapoints)


PATCHES = (
    Patch(
        name="pandas rows",
        module="s3prl.dataio.corpus.base",
        reason="SuperbIC iterates over rows by Series.iteritems, which was removed",
        versions="pandas >= 2; until s3prl calls items",
        needed=lambda base: not hasattr(base.pd.Series, "iteritems"),
        apply=_use_records,
    ),
)
