"""SUPERB: from a corpus to a score, a report and a submission.

``tasks`` has a module for every task; ``metrics`` reads the numbers of s3prl's
evaluations and scores where s3prl does not. ``prepare`` turns published corpora into what s3prl reads,
``recipe`` reads the configuration of a task, ``run`` trains and evaluates. ``scoring`` turns results into
points, ``report`` shows them, ``submission`` packs and checks predictions for the leaderboard.
"""
