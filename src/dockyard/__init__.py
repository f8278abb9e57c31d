"""Dockyard: a model in, a live inference endpoint out, on your own hardware."""

__version__ = "0.1.0"
