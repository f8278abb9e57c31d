"""An adapter on its way in: which base it is checked against, and the card of the two together."""

from pathlib import Path

from dockyard.domain.card import ModelCard
from dockyard.errors import Failed, Reason
from dockyard.prepare.adapter_folder import describe_merged
from dockyard.prepare.artifacts import Artifacts
from dockyard.prepare.deploy_config import read_deploy_config
from dockyard.prepare.manifest import read_manifest, wrong_sizes
from dockyard.protocols.preparation import ImportTask


def describe_adapter(task: ImportTask, source: Path, built: Path) -> ModelCard:
    """Check the adapter in `built` against its base; the card of both. Raises `Failed` (BASE_MODEL_…, ADAPTER_…)."""
    artifacts = Artifacts(Path(task.artifacts_dir))
    base_key = _base_key(task, source, artifacts)
    base = artifacts.folder(base_key)
    if wrong_sizes(base, read_manifest(base).files):
        raise _not_usable("the stored files of the model named as base are damaged; import it again")
    return describe_merged(built, base, base_key, Path(task.scratch_dir) / "view")


def _base_key(task: ImportTask, source: Path, artifacts: Artifacts) -> str:
    """The base that the import names, else the one that an export of the adapter does."""
    if task.base_problem:
        raise _not_usable(task.base_problem)
    if task.base_key:
        return task.base_key
    named = (read_deploy_config(source) or {}).get("baseModel")
    if not isinstance(named, dict):
        raise Failed(
            "the folder holds an adapter, which needs the model that it was tuned from: import that one first, then "
            "name it with baseModelId (dockyard models import … --base MODEL)",
            reason=Reason.BASE_MODEL_MISSING,
        )
    key = str(named.get("artifactKey"))
    if not artifacts.has(key):
        raise Failed(
            f"the adapter was exported with the base model {str(named.get('name'))[:100]!r} (files {key[:12]}…), which "
            "is not in this registry: export that one, too, and import it first, or name another with baseModelId",
            reason=Reason.BASE_MODEL_MISSING,
        )
    return key


def _not_usable(why: str) -> Failed:
    return Failed(why, reason=Reason.BASE_MODEL_NOT_USABLE)
