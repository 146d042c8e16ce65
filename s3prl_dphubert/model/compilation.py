"""Compilation of models by torch.compile, for training on a GPU."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch

log = logging.getLogger(__name__)


class CompiledFunction:
    """A function as torch.compile makes it, or as it is once the compiler has failed.

    Args:
        function: function of tensors, such as a model's ``extract_features``.
        options: of :func:`torch.compile`.
    """

    def __init__(self, function: Callable[..., Any], **options: Any) -> None:
        self.plain = function
        self.compiled: Callable[..., Any] | None = torch.compile(function, **{"dynamic": True, **options})

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Call the function; a failure of the compiler is one warning, and the last attempt."""
        if self.compiled is not None:
            try:
                return self.compiled(*arguments, **named)
            except torch.cuda.OutOfMemoryError:
                raise
            except Exception as error:  # compilers raise errors of many kinds
                reason = " ".join(str(error).split())
                result = self.plain(*arguments, **named)  # if it fails alike, that is the error to show
                log.warning(
                    "torch.compile failed (%s: %.200s); going on without", type(error).__name__, reason
                )
                self.compiled = None
                return result
        return self.plain(*arguments, **named)
