"""What s3prl asks of huggingface_hub and its later versions dropped."""

from __future__ import annotations

import functools
import inspect
from typing import Any

from ..errors import RunError
from .patch import Patch, swapped


class HfFolder:
    """The token's home, by the functions that replaced it."""

    @staticmethod
    def get_token() -> str | None:
        """The token saved by ``hf auth login`` or in the environment."""
        from huggingface_hub import get_token

        return get_token()

    @staticmethod
    def save_token(token: str | None) -> None:
        """Log in with a token, unless it is the one in use; ``None`` is nobody's."""
        from huggingface_hub import get_token, login

        if token and token != get_token():
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


def _log_in(api: Any) -> None:
    import huggingface_hub

    hub: Any = huggingface_hub

    def login(self, username: str | None = None, password: str | None = None) -> str | None:
        """The token in use, if any: the Hub no longer takes passwords."""
        return HfFolder.get_token()

    api.HfApi.login = login
    hub.HfFolder = HfFolder  # s3prl has it save the token, of which there may be none


def _downloads_as_before(runner: Any) -> bool:
    from huggingface_hub import snapshot_download

    asked = "use_auth_token=True" in inspect.getsource(runner.Runner._get_upstream)
    return asked and "use_auth_token" not in inspect.signature(snapshot_download).parameters


def _translate_download(runner: Any) -> None:
    import huggingface_hub

    hub: Any = huggingface_hub
    get_upstream = runner.Runner._get_upstream

    @functools.wraps(get_upstream)
    def with_todays_arguments(self):
        download = hub.snapshot_download

        @functools.wraps(download)
        def snapshot_download(repo_id, revision=None, use_auth_token=None, **others):
            # True asks for a token that there must be; public repositories need none.
            if isinstance(use_auth_token, str):
                others["token"] = use_auth_token
            return download(repo_id, revision=revision, **others)

        with swapped(hub, "snapshot_download", snapshot_download):
            return get_upstream(self)

    runner.Runner._get_upstream = with_todays_arguments


PATCHES = (
    Patch(
        name="huggingface_hub",
        module="huggingface_hub",
        reason="run_downstream imports HfFolder and Repository, which are gone",
        versions="huggingface_hub >= 1; until s3prl no longer imports them",
        needed=lambda hub: not (hasattr(hub, "HfFolder") and hasattr(hub, "Repository")),
        apply=_add,
    ),
    Patch(
        name="huggingface_hub login",
        module="huggingface_hub.hf_api",
        reason="--hub huggingface logs in with HfApi().login(username, password), which is gone",
        versions="huggingface_hub >= 0.30; until s3prl logs in with a token",
        needed=lambda api: not hasattr(api.HfApi, "login"),
        apply=_log_in,
    ),
    Patch(
        name="huggingface_hub snapshots",
        module="s3prl.downstream.runner",
        reason="--hub huggingface calls snapshot_download(NAME, REVISION, use_auth_token=True), a TypeError",
        versions="huggingface_hub >= 0.30; until s3prl names its arguments revision and token",
        needed=_downloads_as_before,
        apply=_translate_download,
    ),
)
