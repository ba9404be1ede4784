"""`/terms` and `/privacy`: short, and true."""

from litestar import Response, get
from litestar.types import ControllerRouterHandler

from vipcloud.console.render import Renderer


def handlers(renderer: Renderer) -> list[ControllerRouterHandler]:
    @get("/terms", sync_to_thread=False)
    def terms() -> Response[str]:
        return renderer.page("pages/terms.html", {"page": "terms"})

    @get("/privacy", sync_to_thread=False)
    def privacy() -> Response[str]:
        return renderer.page("pages/privacy.html", {"page": "privacy"})

    return [terms, privacy]
