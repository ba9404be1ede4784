"""All pages of the operator."""

from litestar.types import ControllerRouterHandler

from vipcloud.console.pages.admin import books, customers, deeds, front, incidents, margin, upstreams, waitlist
from vipcloud.console.pages.admin.desk import Desk
from vipcloud.console.parts import Parts
from vipcloud.console.render import Renderer


def handlers(parts: Parts, renderer: Renderer) -> list[ControllerRouterHandler]:
    desk = Desk(parts, renderer)
    pages = (front, upstreams, margin, customers, waitlist, incidents, books, deeds)
    return [handler for page in pages for handler in page.handlers(desk)]
