"""Two names that s3prl imports from huggingface_hub and that version 1 dropped."""

from __future__ import annotations

from typing import Any

from ..errors import RunError
from .patch import Patch


class HfFolder:
    """The token's home, by the functions that replaced it."""

    @staticmethod
    def get_token() -> str | None:
        """The token saved by ``hf auth login`` or in the environment."""
        from huggingface_hub import get_token

        return get_token()

    @staticmethod
    def save_token(token: str) -> None:
        """Log in with a token."""
        from huggingface_hub import login

        login(token=token, add_to_git_credential=False)


class Repository:
    """What pushed an experiment by git; there is no replacement that s3prl could call."""

    def __init__(self, *args, **kwargs) -> None:
        raise RunError(
            "push_to_hf_hub: huggingface_hub >= 1 cannot do what s3prl asks for; "
            "push the experiment with `hf upload NAME EXPDIR`"
        )


def _add(hub: Any) -> None:
    hub.HfFolder, hub.Repository = HfFolder, Repository


PATCHES = (
    Patch(
        name="huggingface_hub",
        module="huggingface_hub",
        reason="run_downstream imports HfFolder and Repository, which are gone",
        versions="huggingface_hub >= 1; until s3prl no longer imports them",
        needed=lambda hub: not (hasattr(hub, "HfFolder") and hasattr(hub, "Repository")),
        apply=_add,
    ),
)
