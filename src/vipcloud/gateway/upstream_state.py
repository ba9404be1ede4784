"""The gateway's end of the files that tell of its upstream accounts, and that it takes orders from."""

from pathlib import Path

from vipcloud.gateway.upstreams import UpstreamAccount, Upstreams
from vipcloud.status.upstreams import AccountState, Control, ModelState, State, read_control, write_state

WRITE_INTERVAL_S = 5.0


def account_state(account: UpstreamAccount, now_s: float) -> AccountState:
    health = account.health
    return AccountState(
        account.id,
        account.running,
        len(account.keys),
        len(account.refused_keys),
        health.drained,
        health.reason,
        [
            ModelState(
                model,
                health.status(model, now_s),
                breaker.state,
                breaker.opened,
                round(max(health.free_in_s(model, now_s), breaker.free_in_s(now_s)), 1),
            )
            for model, breaker in account.breakers.items()
        ],
    )


class UpstreamNotices:
    """Follows orders, and tells."""

    def __init__(self, upstreams: Upstreams, data: Path) -> None:
        self._upstreams = upstreams
        self._data = data
        self._told: list[AccountState] = []
        self._told_s = float("-inf")
        self._control = Control(revived=read_control(data).revived)

    def follow(self) -> None:
        """Take over what was ordered since the last time."""
        control = read_control(self._data)
        if control == self._control:
            return
        for account in self._upstreams.accounts:
            if control.revived.get(account.id, 0) > self._control.revived.get(account.id, 0):
                account.revive()
            account.health.drained = account.id in control.drained
        self._upstreams.calm = False  # it is looked at anew
        self._control = control

    def tell(self, wall_s: float, now_s: float) -> None:
        """Write the state if it has changed, or was last written long ago."""
        accounts = [account_state(account, now_s) for account in self._upstreams.accounts]
        if accounts != self._told or wall_s - self._told_s >= WRITE_INTERVAL_S:
            self._told, self._told_s = accounts, wall_s
            write_state(self._data, State(wall_s, accounts))
