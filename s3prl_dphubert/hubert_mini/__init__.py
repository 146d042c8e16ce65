"""The making of ``hubert_mini``, the small teacher that ships with this package.

Each step is a command that continues where it was interrupted: :mod:`.phone_model` learns phones from the
aligned speech of the training voices, :mod:`.targets` clusters its hidden states over all speech,
:mod:`.pretrain` learns to predict these targets where its input is masked, and :mod:`.ship` writes the
checkpoint and its card.
"""
