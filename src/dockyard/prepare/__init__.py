"""Preparing models: import, conversion and verification, each run in a process of its own."""
