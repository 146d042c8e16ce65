"""The making of ``hubert_nano``, the small teacher that ships with this package.

Each step is a command: :mod:`.speech` gathers recorded speech from Debian packages, :mod:`.pretrain`
pre-trains on it, :mod:`.probe` measures the phonetic content of each layer, and :mod:`.ship` writes the
checkpoint and its card.
"""
