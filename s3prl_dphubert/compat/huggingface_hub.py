"""Names and arguments of huggingface_hub that s3prl uses and later versions removed."""

from __future__ import annotations

import inspect
from typing import Any

from ..errors import RunError
from .patch import Patch, swapped, wrap


class HfFolder:
    """Access to the saved token, by the functions that replaced this class."""

    @staticmethod
    def get_token() -> str | None:
        """Return the token saved by ``hf auth login`` or set in the environment."""
        from huggingface_hub import get_token

        return get_token()

    @staticmethod
    def save_token(token: str | None) -> None:
        """Log in with a token, unless it is ``None`` or in use already."""
        from huggingface_hub import get_token, login

        if token and token != get_token():
            login(token=token, add_to_git_credential=False)


class RemovedRepository:
    """Stand-in for the class that pushed an experiment by git, which has no replacement.

    Raises:
        RunError: always.
    """

    def __init__(self, *args, **kwargs) -> None:
        raise RunError(
            "push_to_hf_hub is not supported by huggingface_hub >= 1; "
            "push the experiment with `hf upload NAME EXPDIR`"
        )


def _add(hub: Any) -> None:
    hub.HfFolder, hub.Repository = HfFolder, RemovedRepository


def _log_in(api: Any) -> None:
    import huggingface_hub

    hub: Any = huggingface_hub

    def login(self, username: str | None = None, password: str | None = None) -> str | None:
        """Return the token in use, if any; the Hub no longer accepts passwords."""
        return HfFolder.get_token()

    api.HfApi.login = login
    hub.HfFolder = HfFolder  # s3prl saves the token through it, even if there is none


def _passes_old_arguments(runner: Any) -> bool:
    from huggingface_hub import snapshot_download

    passed = "use_auth_token=True" in inspect.getsource(runner.Runner._get_upstream)
    return passed and "use_auth_token" not in inspect.signature(snapshot_download).parameters


def _translate_arguments(runner: Any) -> None:
    import huggingface_hub

    hub: Any = huggingface_hub

    def get_upstream(original, self):
        download = hub.snapshot_download

        def snapshot_download(repo_id, revision=None, use_auth_token=None, **options):
            # True would require a saved token, which public repositories do not need.
            if isinstance(use_auth_token, str):
                options["token"] = use_auth_token
            return download(repo_id, revision=revision, **options)

        with swapped(hub, "snapshot_download", snapshot_download):
            return original(self)

    wrap(runner.Runner, "_get_upstream", get_upstream)


PATCHES = (
    Patch(
        name="huggingface_hub",
        module="huggingface_hub",
        reason="run_downstream imports HfFolder and Repository, which were removed",
        versions="huggingface_hub >= 1; until s3prl no longer imports them",
        needed=lambda hub: not (hasattr(hub, "HfFolder") and hasattr(hub, "Repository")),
        apply=_add,
    ),
    Patch(
        name="huggingface_hub login",
        module="huggingface_hub.hf_api",
        reason="--hub huggingface logs in with HfApi().login(username, password), which was removed",
        versions="huggingface_hub >= 0.30; until s3prl logs in with a token",
        needed=lambda api: not hasattr(api.HfApi, "login"),
        apply=_log_in,
    ),
    Patch(
        name="huggingface_hub snapshots",
        module="s3prl.downstream.runner",
        reason="--hub huggingface calls snapshot_download(NAME, REVISION, use_auth_token=True), a TypeError",
        versions="huggingface_hub >= 0.30; until s3prl passes revision and token by name",
        needed=_passes_old_arguments,
        apply=_translate_arguments,
    ),
)
