"""Speech synthesis by eSpeak NG, from the package ``espeakng-loader`` on PyPI.

The library carries state from one sentence to the next, even across a restart, so a sentence would sound
different each time. Here a separate process (``python -m s3prl_dphubert.free_superb.sources.espeak``)
initialises the library once and forks for each sentence, so that the samples depend on text and voice alone.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import IO, Any

import numpy as np
import soxr

from ...constants import SAMPLE_RATE
from ...errors import DataError

PARAMETERS = {"rate": 1, "volume": 2, "pitch": 3, "range": 4}
"""Numbers of eSpeak NG's parameters (speak_lib.h)."""

SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS: without threads, which a fork would leave behind
UTF8 = 1
SEED = 1
FULL_SCALE = 32768
CUSHION = 0.1  # seconds of silence to leave at either end
QUIET = 1e-3


@dataclass(frozen=True)
class Voice:
    """Voice and prosody of a synthesised sentence.

    Attributes:
        name: accent and variant of eSpeak NG, such as ``en-us+f3``.
        rate: words per minute.
        pitch: 0 to 100, normally 50.
        range: range of the pitch, 0 to 100.
        volume: 0 to 200.
    """

    name: str
    rate: int = 165
    pitch: int = 50
    range: int = 50
    volume: int = 100

    def changed(self, **values: Any) -> Voice:
        """Return a copy with other values of some attributes."""
        return replace(self, **values)


def speak(text: str, voice: Voice) -> np.ndarray:
    """Synthesise a text; returns samples (T,) at 16 kHz.

    Raises:
        DataError: eSpeak NG is missing, or has no such voice.
    """
    process, rate = _start_process()
    stdin, stdout = process.stdin, process.stdout
    if stdin is None or stdout is None:
        raise DataError("the process of eSpeak NG has no pipes")
    stdin.write(json.dumps({"text": text, **asdict(voice)}).encode() + b"\n")
    stdin.flush()
    answer = stdout.readline().decode().strip()
    if not answer.isdigit():
        raise DataError(
            f"eSpeak NG cannot say {text!r} by {voice.name!r} ({answer or 'its process ended'}), "
            "allowed: its voices, such as 'en-us+f3'"
        )
    samples = np.frombuffer(stdout.read(2 * int(answer)), "<i2").astype(np.float32) / FULL_SCALE
    return _trim(soxr.resample(samples, rate, SAMPLE_RATE))


def _trim(samples: np.ndarray) -> np.ndarray:
    """Remove the silence at both ends but for a cushion."""
    loud = np.flatnonzero(np.abs(samples) > QUIET)
    if not len(loud):
        return samples
    cushion = round(CUSHION * SAMPLE_RATE)
    return samples[max(loud[0] - cushion, 0) : loud[-1] + cushion]


@cache
def _start_process() -> tuple[subprocess.Popen[bytes], int]:
    """Start the process; returns it and the rate of its samples in Hz."""
    command = [sys.executable, "-m", "s3prl_dphubert.free_superb.sources.espeak"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    first = process.stdout.readline().decode().strip() if process.stdout else ""
    if not first.isdigit():
        message = process.communicate()[1].decode().strip().rpartition("\n")[2]
        raise DataError(
            f"eSpeak NG cannot be started ({message or first}); it synthesises the speech of IC, SF and ER: "
            "pip install 's3prl-dphubert[free_superb]'"
        )
    return process, int(first)


def _serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer each request line from a forked child: a line with the number of samples, then the samples."""
    import espeakng_loader

    library = ctypes.CDLL(str(espeakng_loader.get_library_path()))
    rate = library.espeak_Initialize(SYNCHRONOUS, 0, str(espeakng_loader.get_data_path()).encode(), 0)
    answers.write(b"%d\n" % rate)
    answers.flush()
    for line in requests:
        child = os.fork()
        if not child:
            answers.write(_synthesise(library, json.loads(line)))
            answers.flush()
            os._exit(0)
        os.waitpid(child, 0)


def _synthesise(library: Any, request: dict[str, Any]) -> bytes:
    """Return the answer to one request."""
    blocks: list[bytes] = []

    def collect(samples: Any, count: int, _: Any) -> int:
        if count > 0:
            blocks.append(ctypes.string_at(samples, 2 * count))
        return 0

    prototype = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
    callback = prototype(collect)
    library.espeak_SetSynthCallback(callback)
    library.espeak_ng_SetRandSeed(ctypes.c_long(SEED))
    if library.espeak_SetVoiceByName(request["name"].encode()):
        return b"no such voice\n"
    for name, number in PARAMETERS.items():
        library.espeak_SetParameter(number, request[name], 0)
    text = request["text"].encode()
    library.espeak_Synth(text, ctypes.c_size_t(len(text) + 1), 0, 1, 0, UTF8, None, None)
    library.espeak_Synchronize()
    samples = b"".join(blocks)
    return b"%d\n" % (len(samples) // 2) + samples


if __name__ == "__main__":
    _serve(sys.stdin.buffer, sys.stdout.buffer)
