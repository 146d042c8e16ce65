"""Wait for ``import s3prl``, then register this package's upstreams. A ``.pth`` file starts this module.

It runs at the start of every interpreter of the environment, so it imports nothing before s3prl is
imported, and never anything where s3prl is not installed. A failure here is one line on stderr, and
s3prl goes on without these upstreams.
"""

import sys

SWITCH = "S3PRL_DPHUBERT_PLUGIN"  # 0 leaves s3prl alone
started = False


class Trigger:
    """Meta path finder that the finder of the upstreams replaces as soon as s3prl is imported."""

    def find_spec(self, name, path=None, target=None):
        """Find nothing, but watch the import of s3prl."""
        if name != "s3prl":
            return None
        try:
            from .upstream.registry import watcher

            sys.meta_path[sys.meta_path.index(self)] = watcher
            return watcher.find_spec(name, path, target)
        except Exception as error:
            from .errors import warn_unregistered

            warn_unregistered(error)
            return None


def start() -> None:
    """Start to wait for s3prl; a second call does nothing."""
    global started
    if not started:
        started = True
        sys.meta_path.insert(0, Trigger())
