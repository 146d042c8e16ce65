"""Tables of utterances under today's pandas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import DataError
from .patch import Patch


def dataframe_to_datapoints(df, unique_name_fn: Callable[[dict[str, Any]], str]) -> dict[str, dict[str, Any]]:
    """Rows by their unique names.

    Raises:
        DataError: two rows have one name.
    """
    rows = df.to_dict("records")
    points = {unique_name_fn(row): row for row in rows}
    if len(points) < len(rows):
        raise DataError(f"{len(rows)} rows have {len(points)} names, allowed: one row a name")
    return points


def _without_iteritems(base: Any) -> bool:
    return not hasattr(base.pd.Series, "iteritems")


def _by_records(base: Any) -> None:
    base.Corpus.dataframe_to_datapoints = staticmethod(dataframe_to_datapoints)


PATCHES = (
    Patch(
        name="pandas rows",
        module="s3prl.dataio.corpus.base",
        reason="SuperbIC walks rows by Series.iteritems, which is gone",
        versions="pandas >= 2; until s3prl calls items",
        needed=_without_iteritems,
        apply=_by_records,
    ),
)
