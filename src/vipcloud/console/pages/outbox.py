"""`/outbox`: the mails of an installation that has no mail server yet, for whoever sits at the machine.

They hold codes that let people in, so the page is there only while nobody else can reach it: no mail server and no
public address are set, and the request comes from this machine, through no proxy, and to a name that is this machine's
own. Another name may have been pointed here by a website, whose page could read the codes then (DNS rebinding).
"""

from litestar import Response, get
from litestar.exceptions import NotFoundException
from litestar.types import ControllerRouterHandler

from vipcloud.accounts import mails
from vipcloud.console import visits
from vipcloud.console.parts import Parts, threaded
from vipcloud.console.render import Renderer
from vipcloud.console.visits import AnyRequest
from vipcloud.http import addresses
from vipcloud.storage import engine as storage


def handlers(parts: Parts, renderer: Renderer) -> list[ControllerRouterHandler]:
    settings = parts.settings
    if settings.mail.host or settings.console.public_url:
        return []

    @get("/outbox")
    @threaded
    def outbox(request: AnyRequest) -> Response[str]:
        client, host = visits.client_address(request.headers), request.headers.get("host", "")
        local = addresses.is_loopback(client) and addresses.names_loopback(host)
        if not local or any(name in request.headers for name in addresses.HANDED_ON):
            raise NotFoundException
        with storage.reading(parts.engine) as connection:
            unsent = mails.unsent(connection)
        return renderer.page(
            "pages/outbox.html", {"page": "outbox", "mails": unsent}, headers={"cache-control": "no-store"}
        )

    return [outbox]
