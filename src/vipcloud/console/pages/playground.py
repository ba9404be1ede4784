"""`/playground`: a conversation with up to three models, at the account's expense. Nothing of it is kept here.

The page asks the gateway by itself (`gateway.playground`); this side only shows what there is to choose from, and makes
the key that those requests are counted by.
"""

from typing import Any, NamedTuple, get_args

from litestar import Response, get, post
from litestar.types import ControllerRouterHandler

from vipcloud.accounts import store
from vipcloud.console import visits
from vipcloud.console.pages import shell
from vipcloud.console.parts import Parts, threaded
from vipcloud.console.render import Renderer
from vipcloud.console.visits import AnyRequest
from vipcloud.dialects.openai import Effort
from vipcloud.providers import abilities
from vipcloud.providers.models import Catalog, Model
from vipcloud.storage import engine as storage

COLUMNS = 3


class Choice(NamedTuple):
    """A model as the page offers it. Prices in pico-dollars per token; `…_max` are the dearest a request can meet."""

    id: str
    status: str
    input: int
    output: int
    input_max: int
    output_max: int
    context_tokens: int
    output_tokens_max: int
    vision: bool
    supports: tuple[str, ...]


def handlers(parts: Parts, renderer: Renderer) -> list[ControllerRouterHandler]:
    def make_key(request: AnyRequest) -> Response[None]:
        """The account's playground key, unless it has one. Its secret is thrown away: only the gateway uses it."""
        now_s = parts.clock.wall_s()
        with storage.writing(parts.engine) as connection:
            account_id = visits.visitor(request, connection, parts).account.id
            if store.working_key(connection, account_id, store.PLAYGROUND_KEY, now_s) is None:
                store.create_key(connection, account_id, now_s, parts.random_bytes, store.PLAYGROUND_KEY)
        return Response(None, status_code=204)

    @get("/playground")
    @threaded
    def show(request: AnyRequest) -> Response[Any]:
        now_s = parts.clock.wall_s()
        with storage.reading(parts.engine) as connection:
            visitor = visits.visitor(request, connection, parts)
            key = store.working_key(connection, visitor.account.id, store.PLAYGROUND_KEY, now_s)
            context = {
                **shell.context(request, connection, visitor, "playground"),
                "ready": key is not None,
                "groups": groups(parts.catalog, now_s),
                "soon": [model.id for model in parts.catalog.models.values() if not model.on_sale],
                "efforts": get_args(Effort),
                "columns": COLUMNS,
            }
        return renderer.page("pages/playground.html", context)

    @post("/playground/key")
    async def open_playground(request: AnyRequest) -> Response[None]:
        await visits.form(request, parts)
        return await parts.in_thread(make_key, request)

    return [show, open_playground]


def groups(catalog: Catalog, now_s: float) -> dict[str, list[Choice]]:
    """What can be asked now, by what the page calls it."""
    found: dict[str, list[Choice]] = {"Live": [], "Free": []}
    for model in catalog.models.values():
        if model.on_sale:
            found["Free" if model.status == "free" else "Live"].append(choice(model, now_s))
    return {title: choices for title, choices in found.items() if choices}


def choice(model: Model, now_s: float) -> Choice:
    assert model.prices is not None, "the catalogue serves no model without a price"
    price = model.prices.at(now_s)
    dearest = price.dearest(model.context_tokens, model.output_tokens_max)
    return Choice(
        id=model.id,
        status=model.status,
        input=price.input,
        output=price.output,
        input_max=dearest.input_max,
        output_max=dearest.output,
        context_tokens=model.context_tokens,
        output_tokens_max=model.output_tokens_max,
        vision=abilities.takes_images(model),
        supports=abilities.supported_parameters(model),
    )
