"""What every page knows about the installation it is part of."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Site:
    """`api_url` is what an SDK takes as `base_url`."""

    public_url: str
    support_email: str
    status: bool = True  # whether there is a status page
    uptime_target: str = "99.5 %"

    @property
    def api_url(self) -> str:
        return f"{self.public_url}/v1"
