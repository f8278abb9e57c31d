"""Events: who changed what, from what, to what, and why. Written in the transaction of the change."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """`subject` is the id of what changed; `deployment_id` and `model_id` let it be found from above."""

    event_id: str
    at: datetime
    subject: str
    before: str | None
    after: str
    reason: str
    message: str
    actor: str  # a key id, or "dockyard"
    deployment_id: str | None = None
    model_id: str | None = None
