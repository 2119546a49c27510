"""Engines as an extension of the notebook."""

from pxtools._version import __version__

__all__ = ["__version__"]
