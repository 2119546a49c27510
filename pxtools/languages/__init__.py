"""Languages beside Python: building Cython modules, comparing functions, what converts to what, what a machine lacks.

Pure functions over plain data; nothing here knows of IPython or of engines. R and Octave themselves run on engines
only: see `pxtools.remote.r_runner` and `pxtools.remote.octave_runner`.
"""
