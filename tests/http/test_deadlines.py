import asyncio

from vipcloud.http.deadlines import NEVER, Deadlines
from wire import until


class Member:
    """Notes when it expired, in the loop's time."""

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.expired = asyncio.Event()
        self.at = 0.0

    def expire(self, now: float) -> None:
        self.at = now
        self.deadline = NEVER
        self.expired.set()


async def test_a_member_expires_late_by_at_most_the_interval_and_never_early() -> None:
    loop = asyncio.get_running_loop()
    deadlines = Deadlines(0.01)
    members = [Member(loop.time() + offset_s) for offset_s in (0.0, 0.02, 0.05)]
    due = [member.deadline for member in members]
    for member in members:
        deadlines.add(member)
    for member in members:
        await member.expired.wait()
    assert all(0 <= member.at - at < 0.25 for member, at in zip(members, due, strict=True))
    deadlines.close()


async def test_a_member_without_a_deadline_or_taken_out_does_not_expire() -> None:
    deadlines = Deadlines(0.01)
    resting, gone, last = Member(NEVER), Member(0.0), Member(0.0)
    for member in (resting, gone, last):
        deadlines.add(member)
    deadlines.discard(gone)
    await last.expired.wait()
    assert not resting.expired.is_set()
    assert not gone.expired.is_set()
    deadlines.close()


async def test_a_member_that_another_ends_does_not_expire() -> None:
    deadlines = Deadlines(0.01)
    members = [Member(0.0), Member(0.0)]

    class Ender(Member):
        def expire(self, now: float) -> None:
            super().expire(now)
            for member in members:
                member.deadline = NEVER

    enders = [Ender(0.0) for _ in range(20)]
    members += enders
    for member in members:
        deadlines.add(member)
    await until(lambda: any(member.expired.is_set() for member in members))
    assert sum(ender.expired.is_set() for ender in enders) == 1
    deadlines.close()


async def test_the_timer_stops_when_no_member_is_left_and_starts_again() -> None:
    deadlines = Deadlines(0.01)
    for _ in range(2):
        member = Member(0.0)
        deadlines.add(member)
        await member.expired.wait()
        deadlines.discard(member)
        await until(lambda: deadlines._timer is None)


async def test_a_member_that_fails_does_not_stop_the_others() -> None:
    faults: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    deadlines = Deadlines(0.01)

    class Broken(Member):
        def expire(self, now: float) -> None:
            super().expire(now)
            raise RuntimeError

    broken, sound = Broken(0.0), Member(asyncio.get_running_loop().time() + 0.05)
    deadlines.add(broken)
    deadlines.add(sound)
    await sound.expired.wait()
    assert len(faults) == 1
    deadlines.close()
