"""Models and the artifacts that they and their conversions are stored as."""

from sqlalchemy import insert, update

from dockyard.domain.lifecycle import ModelState
from dockyard.domain.model import Artifact, Model
from dockyard.store.paging import Page
from dockyard.store.repository import Repository, RevisedRepository
from dockyard.store.rows import to_row
from dockyard.store.tables import ArtifactRow, ModelRow


class Models(RevisedRepository[Model]):
    noun = "model"
    kind = Model
    row = ModelRow
    key = "model_id"

    async def page(self, limit: int, cursor: str | None = None, state: ModelState | None = None) -> Page[Model]:
        return await self._page([] if state is None else [ModelRow.state == state], limit, cursor)

    async def by_artifact(self, key: str) -> list[Model]:
        """The models whose imported files are this artifact."""
        return await self._all(self._select().where(ModelRow.artifact_key == key).order_by(ModelRow.created_at))

    async def based_on(self, model_id: str) -> list[Model]:
        """The models that name this one as their base, oldest first."""
        return await self._all(self._select().where(ModelRow.base_model_id == model_id).order_by(ModelRow.created_at))

    async def all(self) -> list[Model]:
        return await self._all(self._select())


class Artifacts(Repository[Artifact]):
    noun = "artifact"
    kind = Artifact
    row = ArtifactRow
    key = "key"

    async def put(self, artifact: Artifact) -> None:
        """Add the artifact; if it is there already, note when it was last used."""
        touched = await self._executor.write(
            update(self._table).where(ArtifactRow.key == artifact.key).values(last_used_at=artifact.last_used_at)
        )
        if touched == 0:
            await self._executor.write(insert(self._table).values(to_row(artifact)))

    async def all(self) -> list[Artifact]:
        """Oldest first."""
        return await self._all(self._select().order_by(ArtifactRow.created_at, ArtifactRow.key))
