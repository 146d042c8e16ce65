"""FreeSUPERB: every SUPERB task in its official layout, made of speech from Debian packages.

:mod:`.sources` fetches and decodes packages and synthesises speech, :mod:`.clips` labels the recordings,
:mod:`.utterance` adds the times of the words, :mod:`.voices` assigns voices to splits, each module of
:mod:`.corpora` plans the files of one or two tasks, and :mod:`.build` makes all of them.
"""
