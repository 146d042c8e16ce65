"""Effects of SoX without SoX: what ``torchaudio.sox_effects`` did until torchaudio removed it.

The functions have torchaudio's names, arguments and results. All effects but ``rate`` give bit for
bit what SoX 14.4.2 gives in the release that torchaudio 0.12 carried. (Debian's later snapshot
differs in one thing: ``silence`` judges a source of 16 bits by its upper 16 bits, unless ``gain``,
``norm``, resampling or mixing came before.) ``rate`` is the resampler by SoX's own author, soxr,
and differs by -69 dB or less on speech.
"""

from .apply import apply_effects_file, apply_effects_tensor

__all__ = ["apply_effects_file", "apply_effects_tensor"]
