"""Waits for ``import s3prl`` and then registers this package's upstreams; started by a ``.pth`` file.

It runs at the start of every interpreter of the environment, so it imports nothing: not before s3prl
is imported, and nothing ever where s3prl is not installed. Whatever goes wrong here is one line on
stderr, and s3prl goes on without us.
"""

import sys

SWITCH = "S3PRL_DPHUBERT_PLUGIN"  # 0 leaves s3prl alone
started = False


class Trigger:
    """A meta path finder that gives way to the real one as soon as s3prl is looked for."""

    def find_spec(self, name, path=None, target=None):
        """Find nothing, but have the import of s3prl watched."""
        if name != "s3prl":
            return None
        try:
            from .upstream.registry import watcher

            sys.meta_path[sys.meta_path.index(self)] = watcher
            return watcher.find_spec(name, path, target)
        except Exception as error:
            from .errors import complain

            complain(error)
            return None


def start() -> None:
    """Wait for s3prl; a second call does nothing."""
    global started
    if not started:
        started = True
        sys.meta_path.insert(0, Trigger())
