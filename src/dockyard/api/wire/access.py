"""API apps and keys."""

from typing import Annotated

from pydantic import Field

from dockyard.api.wire.base import Listing, Moment, Warnings, WireIn, WireOut
from dockyard.api.wire.fields import Items, OneOf
from dockyard.api.wire.models import Title
from dockyard.domain.access import ApiKey, App, Scope
from dockyard.domain.spec import Bounds

Scopes = Annotated[list[Annotated[Scope, OneOf(Scope)]], Items(Bounds(0, 16))]


class CreateAppIn(WireIn):
    name: Title
    scopes: Scopes = Field(description="What the app's keys may do; no more than the key that asks may do itself.")


class ChangeAppIn(WireIn):
    """What is left out stays as it is."""

    name: Title | None = None
    scopes: Scopes | None = Field(default=None, description="All scopes from now on; the app's keys have them at once.")


class CreateKeyIn(WireIn):
    name: Title


class AppOut(WireOut):
    app_id: str
    name: str
    scopes: tuple[Scope, ...]
    created_on: Moment
    warnings: Warnings = ()

    @classmethod
    def of(cls, app: App, warnings: tuple[str, ...] = ()) -> "AppOut":
        return cls(app_id=app.app_id, name=app.name, scopes=app.scopes, created_on=app.created_at, warnings=warnings)


class AppsOut(Listing):
    apps: tuple[AppOut, ...]


class KeyCreatedOut(WireOut):
    """The only reply that ever holds the key."""

    key_id: str
    name: str
    key: str
    created_on: Moment
    warnings: Warnings = ()


class KeyOut(WireOut):
    key_id: str
    name: str
    last_four: str = Field(description="The last four characters of the key.")
    created_on: Moment
    last_used_on: Moment | None

    @classmethod
    def of(cls, key: ApiKey) -> "KeyOut":
        return cls(
            key_id=key.key_id,
            name=key.name,
            last_four=key.last_four,
            created_on=key.created_at,
            last_used_on=key.last_used_at,
        )


class KeysOut(Listing):
    keys: tuple[KeyOut, ...]


class AppDeletedOut(WireOut):
    app_id: str
    deleted: bool = True


class KeyRevokedOut(WireOut):
    key_id: str
    revoked: bool = True
