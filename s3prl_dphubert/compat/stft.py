"""The downstreams of s3prl that estimate masks of spectrograms: twins, also in their faults."""

DOWNSTREAMS = ("enhancement_stft", "enhancement_stft2", "separation_stft", "separation_stft2")
