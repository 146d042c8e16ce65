"""Runs of SUPERB: from a recipe and a corpus to ``score.json``.

``runner`` has the tasks of a run side by side, ``task_run`` takes one from preparation to its score,
``part_run`` one of its parts, ``experiment`` is one training by s3prl and the evaluations of it, and
``selection`` decides which checkpoint counts. ``workers`` starts s3prl. ``preflight`` checks what is missing,
``status`` reports the progress.
"""
