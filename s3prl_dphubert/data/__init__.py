"""Audio files, manifests and batches."""
