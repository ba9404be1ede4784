"""`/docs/…`: one Markdown file per page under `content/`, with live tables in it; also as Markdown, and searchable."""

from collections.abc import Iterable
from functools import lru_cache
from importlib import resources
from typing import Any, NamedTuple

from litestar import Request, Response, get
from litestar.enums import MediaType
from litestar.exceptions import NotFoundException
from litestar.params import FromPath
from litestar.response import Redirect
from litestar.types import ControllerRouterHandler

from vipcloud import errors
from vipcloud.console import markdown
from vipcloud.console.pages import catalogue, settlement
from vipcloud.console.parts import Parts
from vipcloud.console.render import Renderer
from vipcloud.console.site import Site
from vipcloud.dialects import contract, openrouter
from vipcloud.status import rules

GROUPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Start", ("quickstart", "authentication", "moving-from-openai")),
    (
        "API",
        (
            "chat-completions",
            "streaming",
            "tools",
            "structured-output",
            "vision",
            "reasoning",
            "fallbacks",
            "models",
        ),
    ),
    ("Account", ("management",)),
    (
        "Reference",
        ("openapi", "errors", "rate-limits", "pricing", "status", "privacy", "trust", "questions", "changes"),
    ),
)
SLUGS = tuple(slug for _, slugs in GROUPS for slug in slugs)
MOST_READ = ("quickstart", "chat-completions", "errors", "rate-limits", "pricing")
HITS_MAX = 12
SNIPPET_CHARS = 180


class Link(NamedTuple):
    """A page in the navigation."""

    slug: str
    title: str


class Hit(NamedTuple):
    """One place that a search found."""

    title: str
    section: str
    href: str
    sentence: str


class Docs:
    """The pages as they are now: text is read once, tables are rendered for every visitor."""

    def __init__(self, parts: Parts, renderer: Renderer, site: Site) -> None:
        self._parts = parts
        self._renderer = renderer
        self._site = site
        folder = resources.files("vipcloud.console").joinpath("content")
        self._sources = {slug: folder.joinpath(f"{slug}.md").read_text(encoding="utf-8") for slug in SLUGS}
        self._links = {slug: Link(slug, _title(text)) for slug, text in self._sources.items()}

    def source(self, slug: str) -> str:
        """The page as Markdown, tables filled in. Raises NotFoundException."""
        if slug not in self._sources:
            raise NotFoundException
        catalog, settings = self._parts.catalog, self._parts.settings
        return self._renderer.text_of(
            self._sources[slug],
            {
                "models": catalogue.rows(catalog, self._parts.clock.wall_s()),
                "tiers": catalogue.tiers(settings.tiers),
                "errors": errors.documented(),
                "settlement": settlement.ROWS,
                "settings": settings,
                "operations": contract.OPERATIONS,
                "new_key_fields": contract.fields(openrouter.NewKey),
                "key_fields": contract.fields(openrouter.Key),
                "activity_fields": contract.fields(openrouter.ActivityItem),
                "target": rules.TARGET,
                "requests_min": rules.REQUESTS_MIN,
            },
        )

    def page(self, slug: str) -> markdown.Page:
        return _read(self.source(slug))

    def link(self, slug: str) -> Link:
        return self._links[slug]

    def groups(self) -> list[tuple[str, list[Link]]]:
        return [(name, [self._links[slug] for slug in slugs]) for name, slugs in GROUPS]

    def search(self, query: str) -> list[Hit]:
        """Places that have every word of `query`, titles first, then headings, then text."""
        words = query.lower().split()
        found: list[tuple[int, Hit]] = []
        for slug in SLUGS if words else ():
            page = self.page(slug)
            for section in page.sections:
                rank = _rank(words, page.title.lower(), section.title.lower(), section.words.lower())
                if rank is not None:
                    href = f"/docs/{slug}" + (f"#{section.anchor}" if section.anchor else "")
                    found.append((rank, Hit(page.title, section.title, href, _sentence(section.words, words))))
        return [hit for _, hit in sorted(found, key=lambda each: each[0])][:HITS_MAX]


def _title(source: str) -> str:
    """Every page begins with it, and with nothing that is filled in."""
    first = source.split("\n", 1)[0]
    assert first.startswith("# "), "a page begins with its title"
    return first.removeprefix("# ").strip()


@lru_cache(maxsize=64)
def _read(text: str) -> markdown.Page:
    return markdown.read(text)


def _rank(words: list[str], title: str, heading: str, text: str) -> int | None:
    whole = f"{title} {heading} {text}"
    if not all(word in whole for word in words):
        return None
    if all(word in title for word in words):
        return 0
    return 1 if any(word in heading for word in words) else 2


def _sentence(text: str, words: Iterable[str]) -> str:
    at = next((found for word in words if (found := text.lower().find(word)) >= 0), 0)
    begin = max(text.rfind(". ", 0, at) + 2, 0) if at else 0
    cut = text[begin : begin + SNIPPET_CHARS]
    return cut if len(text) - begin <= SNIPPET_CHARS else cut.rsplit(" ", 1)[0] + " …"


def handlers(parts: Parts, renderer: Renderer) -> list[ControllerRouterHandler]:
    site = Site(parts.public_url, parts.settings.console.support_email)
    docs = Docs(parts, renderer, site)

    @get("/docs", sync_to_thread=False)
    def index(request: Request[Any, Any, Any]) -> Response[Any]:
        query = request.query_params.get("q")
        if query is None:
            return Redirect("/docs/quickstart")
        query = query[:200]
        context = {
            "page": "docs",
            "query": query,
            "hits": docs.search(query),
            "most_read": [docs.link(slug) for slug in MOST_READ],
            "groups": docs.groups(),
            "slug": "",
        }
        return renderer.page("pages/docs_search.html", context)

    @get("/docs/{name:str}", sync_to_thread=False)
    def page(name: FromPath[str], request: Request[Any, Any, Any]) -> Response[Any]:
        slug, dot, kind = name.partition(".")
        if dot and kind != "md":
            raise NotFoundException
        if kind == "md" or request.headers.get("accept", "").startswith("text/markdown"):
            return Response(docs.source(slug), media_type="text/markdown", headers={"vary": "Accept"})
        read = docs.page(slug)
        group = next(name for name, slugs in GROUPS if slug in slugs)
        context = {"page": "docs", "slug": slug, "read": read, "group": group, "groups": docs.groups(), "query": ""}
        return renderer.page("pages/docs.html", context)

    @get("/llms.txt", sync_to_thread=False, media_type=MediaType.TEXT)
    def llms() -> str:
        lines = [
            "# vipcloud",
            "",
            "> An OpenAI-compatible gateway to five model providers, paid in prepaid dollars.",
            "",
        ]
        for group, links in docs.groups():
            lines += [f"## {group}", ""]
            lines += [f"- [{link.title}]({site.public_url}/docs/{link.slug}.md)" for link in links]
            lines.append("")
        lines += ["## Machine-readable", "", f"- [OpenAPI 3.1 document]({site.public_url}/openapi.json)", ""]
        return "\n".join(lines)

    return [index, page, llms]
