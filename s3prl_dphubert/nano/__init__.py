"""How ``hubert_nano``, the small teacher that ships with this package, was made.

Three steps, each a command: :mod:`.speech` (gather recorded speech from Debian
packages), :mod:`.pretrain` (HuBERT pre-training on it), :mod:`.probe` (what each
layer knows about phones).
"""
