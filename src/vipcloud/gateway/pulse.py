"""How late the event loop is, and who is turned away while it is too late.

A timer that should go off every `overload.beat_interval_s` measures it. Some lateness is no overload: a garbage
collection, one huge body. So the least late of the last beats counts, which stays high only while every turn of the
loop takes long. Then new work waits for it as well, and the sooner some of it is refused the sooner the rest is served:
the demo first, then the tiers by their `shed_lag_s`. What has been admitted goes on.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

from vipcloud.errors import Overloaded
from vipcloud.settings import OverloadSettings, Settings
from vipcloud.telemetry.figures import LAG_MS, Buckets, Figures

DEMO_TIER: Final = "demo"
PLAINEST_TIER: Final = "payg"  # what a tier that the settings do not know counts as
NEVER_S: Final = float("inf")


class Pulse:
    """Belongs to one event loop. `marks` says of each tier how late the loop may be; `high`: too late for some."""

    def __init__(
        self,
        settings: OverloadSettings,
        marks: Mapping[str, float],
        figures: Figures,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._settings = settings
        self._marks = {tier: mark_s or NEVER_S for tier, mark_s in marks.items()}
        self._lowest_s = min(self._marks.values())
        self._figures = figures
        self._jitter = jitter
        self._late: deque[float] = deque(maxlen=settings.beats_in_row)
        self._due_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.lags_ms = Buckets(LAG_MS)
        self.lag_s = 0.0
        self.high = False

    @classmethod
    def of(cls, settings: Settings, figures: Figures) -> "Pulse":
        marks = {tier: given.shed_lag_s for tier, given in settings.tiers.items()}
        return cls(settings.overload, {**marks, DEMO_TIER: settings.demo.shed_lag_s}, figures)

    def start(self) -> None:
        """Beat from now on, until `close`."""
        loop, interval_s = asyncio.get_running_loop(), self._settings.beat_interval_s
        self._due_s = loop.time() + interval_s
        self._timer = loop.call_later(interval_s, self._tick)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def beat(self, late_s: float) -> None:
        """One beat came so late."""
        self.lags_ms.note(late_s * 1000)
        self._late.append(late_s)
        self.lag_s = min(self._late) if len(self._late) == self._settings.beats_in_row else 0.0
        self.high = self.lag_s >= self._lowest_s

    def check(self, tier: str) -> None:
        """Raises Overloaded if the loop is too late for a new request of `tier`."""
        mark_s = self._marks.get(tier)
        if mark_s is None:
            tier, mark_s = PLAINEST_TIER, self._marks[PLAINEST_TIER]
        if self.lag_s < mark_s:
            return
        turned_away = self._figures.turned_away
        turned_away[tier] = turned_away.get(tier, 0) + 1
        # In whole seconds, and of those each about as likely: they shall not all come back at once.
        wait_s = 1 + int(self._jitter() * self._settings.retry_after_max_s)
        raise Overloaded("The gateway is at its limit; send the request again in a moment.", retry_after_s=wait_s)

    def _tick(self) -> None:
        self.beat(max(0.0, asyncio.get_running_loop().time() - self._due_s))
        self.start()
