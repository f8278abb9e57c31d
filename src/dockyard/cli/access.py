"""Where the server is and which key opens it: flags, then the environment, then the server's own key file."""

import os
from pathlib import Path
from urllib.parse import urlsplit

from dockyard.cli.failures import BadUsage

DEFAULT_URL = "http://127.0.0.1:8000"


def resolve_url(flag: str | None) -> str:
    """The server's base URL without a slash at its end. Raises `BadUsage` for what is no http(s) URL."""
    url = (flag or os.environ.get("DOCKYARD_URL") or DEFAULT_URL).rstrip("/")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadUsage(f"error: --url must look like {DEFAULT_URL}, got {url!r}")
    return url


def find_key(flag: str | None, url: str) -> str | None:
    """--api-key, DOCKYARD_API_KEY, DOCKYARD_ADMIN_KEY, then `<data-dir>/admin-key`.

    The file belongs to the server of this machine, so it is read for a loopback URL only and never sent elsewhere.
    """
    key = flag or os.environ.get("DOCKYARD_API_KEY") or os.environ.get("DOCKYARD_ADMIN_KEY")
    if key or not on_loopback(url):
        return key or None
    try:
        return (data_dir() / "admin-key").read_text().strip() or None
    except OSError:
        return None


def data_dir() -> Path:
    """The data directory that `dockyard serve` would use when started from this shell."""
    named = os.environ.get("DOCKYARD_DATA_DIR")
    if named:
        return Path(named)
    from dockyard.settings import default_data_dir  # takes 0.2 s to import, for this one case

    return default_data_dir()


def on_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")
