"""Benchmarks: each program runs Dockyard and its peers in turn on the same model and prints how they compare."""
