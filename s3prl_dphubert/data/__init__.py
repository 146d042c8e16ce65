"""Audio files, manifests, batches and stored hidden states."""
