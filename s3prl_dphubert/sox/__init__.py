"""Effects of SoX without SoX: what ``torchaudio.sox_effects`` did before torchaudio 2.9 removed it.

The functions have torchaudio's names, arguments and results. All effects but ``rate`` give what
SoX 14.4.2 gives bit for bit, in the release that torchaudio up to 2.0 carried. (Snapshots of SoX
after it, as in Debian, differ in one thing: ``silence`` judges a source of 16 bits by its upper 16
bits, unless ``gain``, ``norm``, ``rate`` or mixing came before.) ``rate`` is the resampler by SoX's
own author, soxr, and differs by -69 dB or less on speech.
"""

from .apply import apply_effects_file, apply_effects_tensor

__all__ = ["apply_effects_file", "apply_effects_tensor"]
