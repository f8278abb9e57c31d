"""What follows from the replicas that live."""

from datetime import UTC, datetime

from dockyard.domain.replica import Replica, engines_beside

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def replica(version: str, group: str = "g") -> Replica:
    return Replica(
        replica_id="rp",
        version_id=version,
        deployment_id="dp",
        token="t",
        created_at=NOW,
        modified_at=NOW,
        engine_group=group,
    )


def test_a_version_may_join_as_many_engines_as_another_has_replicas_more_than_it() -> None:
    living = [replica("v-1"), replica("v-1"), replica("v-2"), replica("v-3", "h"), *3 * [replica("v-4", "")]]
    assert engines_beside(living, "g", "v-1") == 0
    assert engines_beside(living, "g", "v-2") == 1
    assert engines_beside(living, "g", "v-5") == 2
    assert engines_beside(living, "h", "v-5") == 1
    assert engines_beside(living, "", "v-5") == 0
