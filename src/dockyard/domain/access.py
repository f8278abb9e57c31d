"""Apps, keys and scopes. A key is shown once; only its SHA-256 is kept."""

import hashlib
import re
import uuid
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

# kg-<uuid>-<uuid>: 2 × 122 random bits.
_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
KEY_FORM = re.compile(rf"^kg-{_UUID}-{_UUID}$")


class Scope(StrEnum):
    DEPLOY = "Deploy Model"
    UNDEPLOY = "Undeploy Model"
    IMPORT = "Import Model"
    EXPORT = "Export Model"
    VIEW = "View"
    DELETE = "Delete Model"
    MANAGE_KEYS = "Manage Keys"
    INFER = "Infer"


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """An API app: a name and what its keys may do."""

    app_id: str
    name: str
    scopes: tuple[Scope, ...]
    created_at: datetime
    revision: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key of an app (management) or of a deployment (inference only): exactly one of the two ids is set."""

    key_id: str
    name: str
    digest: str  # SHA-256 of the key, hex
    last_four: str
    created_at: datetime
    app_id: str | None = None
    deployment_id: str | None = None
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None
    revision: int = 0


def new_key() -> str:
    """A fresh secret of the published form."""
    return f"kg-{uuid.uuid4()}-{uuid.uuid4()}"


def digest_of(key: str) -> str:
    """What is stored and compared in place of the key. 244 random bits need no salt and no slow hash."""
    return hashlib.sha256(key.encode()).hexdigest()
