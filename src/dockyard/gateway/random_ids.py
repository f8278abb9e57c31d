"""Ids of requests and replies: unlike any other, and no secrets."""

import random

# Seeded by the system once: 128 bits each time from there would be a system call, twice a request.
_source = random.Random()


def random_id(prefix: str) -> str:
    """`prefix` and 32 hexadecimal digits."""
    return f"{prefix}{_source.getrandbits(128):032x}"
