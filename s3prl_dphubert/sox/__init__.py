"""SoX's effects in numpy, with the interface of ``torchaudio.sox_effects``, which torchaudio removed.

Names, arguments and results are torchaudio's. All effects but ``rate`` give bit for bit the output of
SoX 14.4.2 as torchaudio 0.12 shipped it. (Debian's later snapshot differs in one thing: ``silence`` judges
16-bit sources by their upper 16 bits, unless ``gain``, ``norm``, resampling or mixing came before.)
``rate`` is soxr, the resampler of SoX's own author, and differs by -69 dB or less on speech.
"""

from .apply import apply_effects_file, apply_effects_tensor

__all__ = ["apply_effects_file", "apply_effects_tensor"]
