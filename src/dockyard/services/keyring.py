"""The keys in memory, for the request paths: no database read per request. Refreshed at each change and by a loop."""

from datetime import datetime

from dockyard.clock import Clock
from dockyard.domain.access import KEY_FORM, digest_of
from dockyard.protocols.routing import Principal
from dockyard.store.database import Store


class LiveKeyring:
    """All keys that are not revoked, by digest. Looking a digest up in a dict tells nothing of the key by its timing:
    what is compared is the SHA-256 of the caller's own input.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._principals: dict[str, Principal] = {}
        self._used: dict[str, datetime] = {}

    def find(self, key: str) -> Principal | None:
        if not KEY_FORM.match(key):
            return None
        principal = self._principals.get(digest_of(key))
        if principal is not None:
            self._used[principal.key_id] = self._clock.now()
        return principal

    async def refresh(self) -> None:
        """Load the keys anew; from then on a revoked one is refused."""
        async with self._store.reading() as tx:
            rows = await tx.keys.all_active()
        self._principals = {
            key.digest: Principal(key_id=key.key_id, scopes=frozenset(scopes), deployment_id=key.deployment_id)
            for key, scopes in rows
        }

    async def flush_used(self) -> None:
        """Write when which key was last used; a failure keeps the marks for the next time."""
        used, self._used = self._used, {}
        if not used:
            return
        try:
            async with self._store.transaction() as tx:
                await tx.keys.touch(used)
        except BaseException:
            self._used = {**used, **self._used}
            raise
