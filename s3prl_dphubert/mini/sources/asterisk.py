"""What Asterisk's English prompts say: the list of texts in the package without recordings."""

from __future__ import annotations

import gzip
from pathlib import Path

from . import deb

TEXTS = "asterisk-core-sounds-en"
RECORDINGS = "asterisk-core-sounds-en-g722"
FOLDER = "asterisk__sounds__en_US_f_Allison__"
"""What a decoded clip's name begins with."""


def texts(package: Path) -> dict[str, str]:
    """Name of a decoded clip -> what it says; noises, described in brackets, are left out."""
    said = {}
    for _, data in deb.files(package, r"/core-sounds-en\.txt\.gz$"):
        for line in gzip.decompress(data).decode("utf-8-sig").splitlines():
            prompt, colon, text = line.partition(":")
            if colon and not line.startswith(";") and not text.strip().startswith(("[", "(")):
                said[FOLDER + prompt.strip().replace("/", "__")] = text.strip()
    return said
