"""Compression as a recipe of s3prl's pretraining: ``run_pretrain.py -u dphubert``."""
