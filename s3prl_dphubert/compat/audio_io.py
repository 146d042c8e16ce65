"""torchaudio's file functions on top of soundfile; torchaudio 2.9 left them to torchcodec."""

from __future__ import annotations

import tempfile
import warnings
import wave
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .patch import Patch

if TYPE_CHECKING:
    import torch

_INTEGER_TYPES = {
    "PCM_U8": "int16",  # libsndfile returns 8 bits in the upper half of 16
    "PCM_S8": "int16",
    "PCM_16": "int16",
    "PCM_24": "int32",
    "PCM_32": "int32",
}
"""Subtype of an integer WAV -> type to read it as."""

_BITS = {"PCM_S8": 8, "PCM_U8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32}
_BITS |= {"FLOAT": 32, "DOUBLE": 64, "ULAW": 8, "ALAW": 8}
_SUBTYPE_OF_TYPE = {
    "uint8": "PCM_U8",
    "int16": "PCM_16",
    "int32": "PCM_32",
    "float32": "FLOAT",
    "float64": "DOUBLE",
}
_SUBTYPE_OF_ENCODING = {
    ("PCM_S", 8): "PCM_S8",
    ("PCM_S", 16): "PCM_16",
    ("PCM_S", 24): "PCM_24",
    ("PCM_S", 32): "PCM_32",
    ("PCM_U", 8): "PCM_U8",
    ("PCM_F", 32): "FLOAT",
    ("PCM_F", 64): "DOUBLE",
    ("ULAW", 8): "ULAW",
    ("ALAW", 8): "ALAW",
}
"""(encoding, bits per sample) -> libsndfile's subtype."""


@dataclass(frozen=True)
class AudioMetaData:
    """Return value of ``torchaudio.info`` up to 2.8."""

    sample_rate: int
    num_frames: int
    num_channels: int
    bits_per_sample: int
    encoding: str


def info(
    uri, format: str | None = None, buffer_size: int = 4096, backend: str | None = None
) -> AudioMetaData:
    """Read a header; ``format``, ``buffer_size`` and ``backend`` are ignored."""
    import soundfile

    with soundfile.SoundFile(uri) as file:
        bits = _BITS.get(file.subtype, 0)
        return AudioMetaData(file.samplerate, file.frames, file.channels, bits, _encoding(file))


def load(
    uri,
    frame_offset: int = 0,
    num_frames: int = -1,
    normalize: bool = True,
    channels_first: bool = True,
    format: str | None = None,
    buffer_size: int = 4096,
    backend: str | None = None,
) -> tuple[torch.Tensor, int]:
    """Decode a file or an open binary file.

    Args:
        uri: path or file object.
        frame_offset: first sample to read.
        num_frames: number of samples per channel; -1 reads to the end.
        normalize: return float32 from -1 to 1; otherwise integer WAV keeps its integer type.
        channels_first: return (channels, T) rather than (T, channels).
        format: ignored, as are ``buffer_size`` and ``backend``.

    Returns:
        Samples, and the sample rate in Hz.

    Raises:
        ValueError: ``frame_offset`` or ``num_frames`` is out of range.
        soundfile.LibsndfileError: the file cannot be decoded.
    """
    import soundfile
    import torch

    if frame_offset < 0:
        raise ValueError(f"frame_offset is {frame_offset}, allowed: 0 or more")
    if num_frames < -1:
        raise ValueError(f"num_frames is {num_frames}, allowed: -1 or more")
    with soundfile.SoundFile(uri) as file:
        keep_integers = not normalize and file.format in ("WAV", "WAVEX", "RF64")
        dtype = _INTEGER_TYPES.get(file.subtype, "float32") if keep_integers else "float32"
        file.seek(min(frame_offset, file.frames))
        samples = torch.from_numpy(file.read(num_frames, dtype=dtype, always_2d=True))
        if keep_integers and file.subtype == "PCM_U8":
            samples = ((samples >> 8) + 128).to(torch.uint8)
        elif keep_integers and file.subtype == "PCM_S8":
            samples = (samples >> 8).to(torch.int8)
        return (samples.t().contiguous() if channels_first else samples), file.samplerate


def save(
    uri,
    src: torch.Tensor,
    sample_rate: int,
    channels_first: bool = True,
    format: str | None = None,
    encoding: str | None = None,
    bits_per_sample: int | None = None,
    buffer_size: int = 4096,
    backend: str | None = None,
    compression: Any = None,
) -> None:
    """Write samples; without ``encoding`` the type of the tensor decides, as it did for WAV.

    Raises:
        ValueError: ``src`` is not two-dimensional, or the encoding is unknown.
    """
    import soundfile

    if src.ndim != 2:
        raise ValueError(f"src has {src.ndim} dimensions, allowed: 2 (channels and samples)")
    samples = (src.t() if channels_first else src).detach().cpu().numpy()
    subtype = None
    if encoding is not None:
        bits = bits_per_sample or (16 if encoding == "PCM_S" else 32)
        subtype = _SUBTYPE_OF_ENCODING.get((encoding, bits))
        if subtype is None:
            allowed = ", ".join(f"{name} {count}" for name, count in sorted(_SUBTYPE_OF_ENCODING))
            raise ValueError(f"encoding is {encoding} with {bits} bits, allowed: {allowed}")
    elif format in (None, "wav") and not str(uri).lower().endswith((".flac", ".ogg", ".mp3")):
        subtype = _SUBTYPE_OF_TYPE.get(str(samples.dtype))
    if samples.dtype == "uint8":
        samples = (samples.astype("int16") - 128) << 8
    soundfile.write(uri, samples, sample_rate, subtype=subtype, format=format)


def set_audio_backend(backend: str | None) -> None:
    """Do nothing, as torchaudio 2.1 to 2.8 did."""


def get_audio_backend() -> str:
    """Return the only backend."""
    return "soundfile"


def list_audio_backends() -> list[str]:
    """Return the only backend, in a list."""
    return ["soundfile"]


def _encoding(file) -> str:
    subtype = file.subtype
    if file.format in ("FLAC", "MP3"):
        return file.format
    if subtype.startswith("PCM_"):
        return "PCM_U" if subtype == "PCM_U8" else "PCM_S"
    return "PCM_F" if subtype in ("FLOAT", "DOUBLE") else subtype


def _fails(name: str) -> Callable[[Any], bool]:
    """Make a check for whether a function of torchaudio is missing or fails on a second of WAV."""

    def needed(torchaudio: Any) -> bool:
        function = getattr(torchaudio, name, None)
        if function is None:
            return True
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            path = Path(folder, "second.wav")
            with wave.open(str(path), "wb") as file:
                file.setnchannels(1)
                file.setsampwidth(2)
                file.setframerate(16_000)
                file.writeframes(bytes(32_000))
            try:
                function(path), function(str(path))
            except Exception:  # s3prl would fail on its first utterance
                return True
        return False

    return needed


def _add(*functions: Callable[..., Any]) -> Callable[[Any], None]:
    def apply(torchaudio: Any) -> None:
        for function in functions:
            setattr(torchaudio, function.__name__, function)

    return apply


PATCHES = (
    Patch(
        name="torchaudio.backends",
        module="torchaudio",
        reason="`import s3prl.hub` and run_downstream call torchaudio.set_audio_backend, which is gone",
        versions="torchaudio >= 2.9; until s3prl no longer calls it",
        needed=lambda torchaudio: not hasattr(torchaudio, "set_audio_backend"),
        apply=_add(set_audio_backend, get_audio_backend, list_audio_backends),
    ),
    Patch(
        name="torchaudio.info",
        module="torchaudio",
        reason="s3prl.util.audio_info and SuperbKS call torchaudio.info, which is gone or takes no Path",
        versions="torchaudio >= 2.9; 2.8 with libsox, which takes no Path; until s3prl no longer calls it",
        needed=_fails("info"),
        apply=_add(info),
    ),
    Patch(
        name="torchaudio.load",
        module="torchaudio",
        reason="torchaudio.load and save need torchcodec and ffmpeg; soundfile reads the same files",
        versions="torchaudio >= 2.9 without torchcodec, or with a torchcodec that finds no ffmpeg",
        needed=_fails("load"),
        apply=_add(load, save),
    ),
)
