"""Archives that wait to be fetched, and the signed links that open them without a key."""

import hashlib
import hmac
import os
import secrets
from datetime import datetime
from pathlib import Path
from urllib.parse import urlencode

from dockyard.errors import Forbidden, Invalid, Reason

_SECRET_BYTES = 32


class Downloads:
    """`folder` holds one archive per export job. A link is `…/downloads/<job id>?expires=<unix>&signature=<hex>`."""

    def __init__(self, folder: Path, secret: bytes, base_url: str) -> None:
        self.folder = folder
        self._secret = secret
        self._base_url = base_url

    def path(self, job_id: str) -> Path:
        """Where the archive of a job is or would be. Only for ids of jobs, never for what a client sent."""
        return self.folder / f"{job_id}.tar"

    def link(self, job_id: str, expires_at: datetime) -> str:
        """A URL that opens the archive until `expires_at`, which is in whole seconds."""
        expires = int(expires_at.timestamp())
        query = urlencode({"expires": expires, "signature": self._sign(job_id, expires)})
        return f"{self._base_url}/api/public/downloads/{job_id}?{query}"

    def check(self, job_id: str, expires: int, signature: str, now: datetime) -> None:
        """Raise `Forbidden` (BAD_SIGNATURE, LINK_EXPIRED) unless the link is one of ours and still valid."""
        # Bytes, since the comparison in constant time takes no text beyond ASCII.
        if not hmac.compare_digest(self._sign(job_id, expires).encode(), signature.encode("utf-8", "replace")):
            raise Forbidden(
                "the signature does not fit this link; take downloadUrl from the dock status as it is",
                reason=Reason.BAD_SIGNATURE,
                field="signature",
            )
        if now.timestamp() >= expires:
            raise Forbidden("the link has expired; export the model again", reason=Reason.LINK_EXPIRED, field="expires")

    def stored(self) -> tuple[str, ...]:
        """The ids of the jobs that have an archive here."""
        return tuple(sorted(path.stem for path in self.folder.glob("*.tar")))

    def remove(self, job_id: str) -> None:
        """No error if it is gone already. Who is fetching it gets the rest."""
        self.path(job_id).unlink(missing_ok=True)

    def _sign(self, job_id: str, expires: int) -> str:
        return hmac.new(self._secret, f"{job_id}\n{expires}".encode("utf-8", "replace"), hashlib.sha256).hexdigest()


def read_signing_key(file: Path) -> bytes:
    """The secret in `file`, which only the server's user can read; made if it is not there, or only half.

    Raises `Invalid` if the file can be neither read nor made.
    """
    try:
        secret = _read(file)
        return secret if len(secret) == _SECRET_BYTES else _make(file)
    except OSError as error:
        raise Invalid(
            f"{file} can be neither read nor made: {error.strerror}; let the server's user do both, or choose another "
            "--data-dir",
            field="data_dir",
        ) from error


def _read(file: Path) -> bytes:
    try:
        return bytes.fromhex(file.read_text())
    except (FileNotFoundError, ValueError):
        return b""


def _make(file: Path) -> bytes:
    secret = secrets.token_bytes(_SECRET_BYTES)
    new = file.with_name(f"{file.name}.new")
    new.unlink(missing_ok=True)
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(secret.hex())
    new.rename(file)
    return secret
