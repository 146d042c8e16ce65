"""The folder ``pretrain/dphubert`` of s3prl."""
