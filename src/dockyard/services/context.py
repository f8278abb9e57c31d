"""What every use case is handed: the store, the clock, and the outside world behind its protocols."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dockyard.clock import Clock
from dockyard.domain.devices import Host
from dockyard.protocols.fleet import Fleet
from dockyard.protocols.preparation import Preparer
from dockyard.protocols.routing import Router
from dockyard.services.downloads import Downloads
from dockyard.services.keyring import LiveKeyring
from dockyard.services.upload_files import UploadFiles
from dockyard.store.database import Store

SYSTEM = "dockyard"  # the actor of what the server does by itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The settings that decide requests. `delay_unit_ms`: how many ms one unit of the scaling delays is.

    `import_roots` empty and `loopback` true: any path that the server can read may be imported.
    """

    strict_devices: bool = False
    delay_unit_ms: int = 1
    import_roots: tuple[Path, ...] = ()
    loopback: bool = True
    upload_ttl_s: float = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """`wake` tells the loops that there is something to do; calling it too often is harmless."""

    store: Store
    clock: Clock
    preparer: Preparer
    fleet: Fleet
    router: Router
    keyring: LiveKeyring
    downloads: Downloads
    uploads: UploadFiles
    host: Callable[[], Host]
    policy: Policy
    wake: Callable[[], None]
