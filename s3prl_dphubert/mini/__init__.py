"""mini-SUPERB: every SUPERB task in its official layout, made of speech from Debian packages.

:mod:`.packages` fetches, :mod:`.corpus` decodes, :mod:`.alignment` knows where words lie,
:mod:`.voices` says who may be heard where, one module a task lays it out, :mod:`.build` does it all.
"""
