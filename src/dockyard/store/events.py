"""Events: only added and read."""

from dockyard.domain.event import Event
from dockyard.store.paging import Page
from dockyard.store.repository import Repository
from dockyard.store.tables import EventRow


class Events(Repository[Event]):
    noun = "event"
    kind = Event
    row = EventRow
    key = "event_id"
    at = "at"
    tie = "position"

    async def page(
        self,
        limit: int,
        cursor: str | None = None,
        deployment_id: str | None = None,
        model_id: str | None = None,
        subject: str | None = None,
    ) -> Page[Event]:
        wanted = {
            EventRow.deployment_id: deployment_id,
            EventRow.model_id: model_id,
            EventRow.subject: subject,
        }
        conditions = [column == value for column, value in wanted.items() if value is not None]
        return await self._page(conditions, limit, cursor)
