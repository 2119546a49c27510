"""The code that runs on engines.

Standard library and NumPy only; IPython and cloudpickle are imported where they are used. Engines that have no
pxtools, or another version of it, get these files over the wire (`importer`). The client uses `pickling` too.
"""
