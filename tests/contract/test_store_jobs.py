"""Jobs and leases: of all who ask for a job, one at a time works on it."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from dockyard.domain.job import Action, Job, Phase, advance, succeed
from dockyard.domain.lifecycle import JobStatus
from dockyard.errors import Stale
from dockyard.store.database import Store

NOW = datetime(2026, 2, 5, tzinfo=UTC)
LEASE = timedelta(seconds=10)


def a_job(number: int, status: JobStatus = JobStatus.IN_PROGRESS) -> Job:
    at = NOW + timedelta(milliseconds=number)
    return Job(
        job_id=f"ds-{number}",
        model_id=f"cm-{number % 2}",
        action=Action.DEPLOY,
        created_at=at,
        modified_at=at,
        status=status,
        deployment_id=f"dp-{number % 2}",
        version_id="vr-1",
    )


async def add(store: Store, *jobs: Job) -> None:
    async with store.transaction() as tx:
        for job in jobs:
            await tx.jobs.add(job)


async def test_a_claim_takes_every_job_in_progress_that_nobody_holds(store: Store) -> None:
    await add(store, a_job(1), a_job(2), a_job(3, JobStatus.SUCCESS), a_job(4, JobStatus.FAILED))
    async with store.transaction() as tx:
        claimed = await tx.jobs.claim("me", NOW, NOW + LEASE)
        assert claimed == [
            replace(a_job(number), lease_owner="me", lease_until=NOW + LEASE, revision=1) for number in (1, 2)
        ]
        assert await tx.jobs.claim("you", NOW + LEASE / 2, NOW + 2 * LEASE) == []
        assert await tx.jobs.get("ds-1") == claimed[0]


async def test_an_expired_lease_can_be_claimed_and_its_old_owner_can_no_longer_save(store: Store) -> None:
    await add(store, a_job(1))
    async with store.transaction() as tx:
        (mine,) = await tx.jobs.claim("me", NOW, NOW + LEASE)
        (yours,) = await tx.jobs.claim("you", NOW + LEASE, NOW + 2 * LEASE)
        assert yours.lease_owner == "you"
        with pytest.raises(Stale):
            await tx.jobs.save(advance(mine, Phase.VALIDATING, "late", NOW))
        assert await tx.jobs.renew("me", ["ds-1"], NOW + 3 * LEASE) == frozenset()
        assert await tx.jobs.get("ds-1") == yours


async def test_of_many_claimants_each_job_goes_to_one(store: Store, second_store: Store) -> None:
    jobs = [a_job(number) for number in range(8)]
    taken: list[str] = []

    async def claim(on: Store, owner: str) -> None:
        async with on.transaction() as tx:
            taken.extend(job.job_id for job in await tx.jobs.claim(owner, NOW, NOW + LEASE))

    async def add_one_by_one() -> None:
        for job in jobs:
            await add(store, job)

    await asyncio.gather(
        add_one_by_one(), *(claim(on, f"w{number}") for number in range(8) for on in (store, second_store))
    )
    await claim(store, "last")
    assert sorted(taken) == [job.job_id for job in jobs]


async def test_renewing_keeps_the_lease_and_the_revision(store: Store) -> None:
    await add(store, a_job(1), a_job(2, JobStatus.SUCCESS))
    async with store.transaction() as tx:
        (job,) = await tx.jobs.claim("me", NOW, NOW + LEASE)
        assert await tx.jobs.renew("me", ["ds-1", "ds-2", "ds-9"], NOW + 5 * LEASE) == {"ds-1"}
        assert await tx.jobs.renew("me", [], NOW) == frozenset()
        advanced = await tx.jobs.save(advance(job, Phase.VALIDATING, "looking", NOW))
        kept = await tx.jobs.get("ds-1")
    assert kept == replace(advanced, lease_until=NOW + 5 * LEASE)


async def test_a_job_that_ends_gives_its_lease_up(store: Store) -> None:
    await add(store, a_job(1))
    async with store.transaction() as tx:
        (job,) = await tx.jobs.claim("me", NOW, NOW + LEASE)
        done = await tx.jobs.save(succeed(job, "there it is", NOW, {"url": "/v1"}))
        assert await tx.jobs.get("ds-1") == done
        assert (done.lease_owner, done.lease_until) == (None, None)


@pytest.mark.parametrize(("owner", "free"), [("me", ["ds-1"]), (None, ["ds-1", "ds-2"]), ("nobody", [])])
async def test_released_jobs_can_be_claimed_at_once(store: Store, owner: str | None, free: list[str]) -> None:
    await add(store, a_job(1))
    async with store.transaction() as tx:
        await tx.jobs.claim("me", NOW, NOW + LEASE)
        await tx.jobs.add(a_job(2))
        await tx.jobs.claim("you", NOW, NOW + LEASE)
        assert await tx.jobs.release(owner) == len(free)
        assert [job.job_id for job in await tx.jobs.claim("next", NOW, NOW + LEASE)] == free


async def test_jobs_are_found_by_version_deployment_model_and_status(store: Store) -> None:
    await add(store, a_job(1), a_job(2), a_job(3), a_job(5, JobStatus.FAILED))
    async with store.reading() as tx:
        assert [job.job_id for job in await tx.jobs.in_progress()] == ["ds-1", "ds-2", "ds-3"]
        assert await tx.jobs.of_version("vr-1") == a_job(5, JobStatus.FAILED)
        assert await tx.jobs.of_version("vr-9") is None
        assert [job.job_id for job in await tx.jobs.open_for_deployment("dp-1")] == ["ds-1", "ds-3"]
        page = await tx.jobs.page(9, None, "cm-1", JobStatus.IN_PROGRESS)
        assert [job.job_id for job in page.items] == ["ds-3", "ds-1"]
        assert (await tx.jobs.page(9, model_id="cm-1")).total == 3
        assert (await tx.jobs.page(9, status=JobStatus.FAILED)).total == 1
