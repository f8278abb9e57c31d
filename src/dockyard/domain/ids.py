"""Identifiers: a prefix that tells the kind, and a UUID. Opaque to clients."""

import uuid


def new_id(prefix: str) -> str:
    """Prefixes: `cm` model, `ds` job (dock status), `dp` deployment, `vr` version, `rp` replica, `ev` event,
    `ak` key, `app` app.
    """
    return f"{prefix}-{uuid.uuid4()}"
