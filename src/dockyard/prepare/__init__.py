"""Preparing models: import, conversion, verification and export, each run in a process of its own."""
