"""SUPERB: its tasks, what s3prl leaves of them, scores, reports and submissions.

``tasks.py`` is the one table of tasks. ``readers.py`` turns what s3prl prints and writes into
metrics, with ``mtwv.py`` and ``der.py`` for the two tasks that s3prl does not score itself.
``record.py`` is the ``score.json`` that a finished task leaves; ``summary.py`` makes reports of
such files alone, beside the published rows of ``published.py``. ``predictions.py``, ``archive.py``
and ``form.py`` make and check a submission.
"""
