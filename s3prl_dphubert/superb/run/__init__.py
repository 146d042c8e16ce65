"""Runs of SUPERB: from a recipe and a corpus to ``score.json``.

``runner`` has the tasks of a run side by side, ``task`` takes one from preparation to its score,
``experiment`` is one training by s3prl and what is evaluated of it, ``choice`` says which checkpoint counts,
``launcher`` starts s3prl (``server`` and ``jobs`` are the other side), ``check`` says what is missing and
``status`` how far all is.
"""
