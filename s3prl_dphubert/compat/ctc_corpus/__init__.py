"""The corpora that ``s3prl.downstream.ctc`` reads: one class for each, as its ``data.py`` asks for them."""
