"""Where the server is and which key opens it: flags, then the environment, then the server's own key file."""

import os
from pathlib import Path
from urllib.parse import urlsplit

from dockyard.cli.failures import BadUsage

DEFAULT_URL = "http://127.0.0.1:8000"


def resolve_url(flag: str | None) -> str:
    """The server's base URL, without a slash or the path of one of its APIs at its end.

    Raises `BadUsage` for what is no http(s) URL.
    """
    told = (flag or os.environ.get("DOCKYARD_URL") or DEFAULT_URL).strip().rstrip("/")
    url = told.removesuffix("/api/public").removesuffix("/v1")
    if not _is_http(url):
        name = "--url" if flag else "DOCKYARD_URL"
        raise BadUsage(f"error: {name} must look like {DEFAULT_URL}, got {told!r}")
    return url


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # what urllib takes for no port, or for no address
        return False


def find_key(flag: str | None, url: str) -> str | None:
    """--api-key, DOCKYARD_API_KEY, DOCKYARD_ADMIN_KEY, then `<data-dir>/admin-key`.

    The file belongs to the server of this machine, so it is read for a loopback URL only and never sent elsewhere.
    Raises `BadUsage` for what can be no key.
    """
    given = {
        "--api-key": flag,
        "DOCKYARD_API_KEY": os.environ.get("DOCKYARD_API_KEY"),
        "DOCKYARD_ADMIN_KEY": os.environ.get("DOCKYARD_ADMIN_KEY"),
    }
    for name, value in given.items():
        if value and value.strip():
            return _checked(name, value)
    if not on_loopback(url):
        return None
    file = data_dir() / "admin-key"
    try:
        kept = file.read_text(errors="replace")
    except OSError:
        return None
    return _checked(str(file), kept) or None


def _checked(where: str, value: str) -> str:
    """The key without what a copy or an editor put around it."""
    key = value.strip()
    if not (key.isascii() and key.isprintable()):
        raise BadUsage(f"error: {where} holds no key: it must look like kg-…-…, letters, digits and hyphens only")
    return key


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
