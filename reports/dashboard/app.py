"""The application: its routes, all of which read. Every answer opens the database for itself, and closes it."""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from importlib import resources
from pathlib import Path
from threading import Lock

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nas_core import distribution
from nas_core.errors import InfeasibleError, MachineError, NasError, NotFoundError
from reports import plotly_figure
from reports.dashboard import views
from reports.pages import html
from reports.texts import moment
from studies.store.store import Store

COOKIE = "nas-token"
EVERY = 1.0  # seconds between two looks for what is new
SHARE = 40  # a look is followed by so many times as many seconds as it took of a processor
KEPT = 64  # figures
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
STATUS = ((NotFoundError, 404), (InfeasibleError, 404), (MachineError, 503), (NasError, 400))
PAGES: dict[str, Callable[[Store, views.Query], views.Values]] = {
    "studies": views.studies,
    "study": views.study,
    "run": views.run,
    "bench": views.bench,
    "running": views.running,
}
TEMPLATES = {"run": "page", "bench": "page"}
"""Of pages that share one."""
PROGRAM = f"{distribution.NAME} {distribution.version()}"


def application(url: str, files: Path | None, *, token: str | None = None, hosts: Sequence[str] = ()) -> Starlette:
    """Pages of a database. `token`: who does not have it sees nothing; `hosts`: the names under which it answers, so
    that a page from elsewhere cannot ask under a name of its own (all, where none is given)."""
    dashboard = Dashboard(url, files)
    routes = [
        Route("/", partial(dashboard.page, "studies")),
        *(Route(f"/{name}", partial(dashboard.page, name)) for name in PAGES if name != "studies"),
        Route("/compare", dashboard.compare),
        Route("/figure.json", dashboard.figure),
        Route("/events", dashboard.events),
        Route("/static/{name}", static),
    ]
    return Starlette(routes=routes, middleware=[Middleware(Guard, token=token, hosts=hosts)])


class Dashboard:
    """The endpoints. Those that are no coroutines run in threads, as many at a time as Starlette has."""

    def __init__(self, url: str, files: Path | None) -> None:
        self._url, self._files = url, files
        self._figures: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self._lock = Lock()

    def store(self) -> Store:
        return Store(self._url, self._files, reading=True)

    def page(self, name: str, request: Request) -> Response:
        try:
            with self.store() as store:
                return self._written(name, request, PAGES[name](store, request.query_params))
        except NasError as error:
            return self._trouble(error, request)

    def compare(self, request: Request) -> Response:
        names = request.query_params.getlist("name")
        try:
            with self.store() as store:
                return self._written("compare", request, {**views.comparison(store, names), "chosen": names})
        except NasError as error:
            return self._trouble(error, request)

    def figure(self, request: Request) -> Response:
        """A figure's data for Plotly, kept until its study has changed."""
        query = request.query_params
        names = query.getlist("name")
        try:
            with self.store() as store:
                owner = None if "study" not in query else store.study(query["study"])
                version = "" if owner is None and not names else views.version(store, owner)
                key = str(query), version
                with self._lock:
                    content = self._figures.get(key)
                if content is None:
                    content = _drawn(store, query, names)
                    with self._lock:
                        self._figures[key] = content
                        while len(self._figures) > KEPT:
                            self._figures.popitem(last=False)
        except NasError as error:
            return Response(json.dumps({"trouble": str(error)}), _status(error), media_type="application/json")
        return Response(content, media_type="application/json")

    async def events(self, request: Request) -> Response:
        """Tells when something has been written that the page shows."""
        name = request.query_params.get("study")
        return EventSourceResponse(self._changes(request, name))

    async def _changes(self, request: Request, name: str | None) -> AsyncIterator[ServerSentEvent]:
        before: str | None = None
        while not await request.is_disconnected():
            try:
                now, seconds = await run_in_threadpool(self._version, name)
            except NasError:
                return  # it is gone, or locked for long: the page asks again
            if now != before:
                yield ServerSentEvent(data="" if before is None else "changed", event="version", id=None)
                before = now
            await asyncio.sleep(max(EVERY, SHARE * seconds))

    def _version(self, name: str | None) -> tuple[str, float]:
        """And the seconds of a processor that finding it took."""
        begun = time.thread_time()
        with self.store() as store:
            found = views.version(store, None if name is None else store.study(name))
        return found, time.thread_time() - begun

    def _written(self, name: str, request: Request, values: views.Values, status: int = 200) -> Response:
        template = html.environment().get_template(f"dash-{TEMPLATES.get(name, name)}.html")
        text = template.render(**values, place=name, here=partial(_here, request), program=PROGRAM, moment=moment)
        return Response(text, status, media_type="text/html")

    def _trouble(self, error: NasError, request: Request) -> Response:
        return self._written("trouble", request, {"error": str(error)}, _status(error))


def _here(request: Request, **changes: object) -> str:
    """The URL of this page with other parameters."""
    kept = dict(request.query_params) | {name: str(value) for name, value in changes.items()}
    return str(request.url.include_query_params(**kept).query)


def _drawn(store: Store, query: views.Query, names: list[str]) -> bytes:
    """A figure's data, or why nothing is stored of it yet."""
    try:
        made = plotly_figure.data(views.figure(store, query, names))
    except (NotFoundError, InfeasibleError) as error:
        made = {"trouble": str(error)}
    return json.dumps(made, allow_nan=False).encode()


def _status(error: NasError) -> int:
    return next(status for kind, status in STATUS if isinstance(error, kind))


def static(request: Request) -> Response:
    """Plotly's program, ours, and the style. Raises nothing for other names: they are not found."""
    name = request.path_params["name"]
    if name == "plotly.js":
        content, kind = plotly_figure.script(), "text/javascript"
    elif name == "style.css":
        own = resources.files("reports.dashboard") / "static" / "dashboard.css"
        content = (resources.files("reports.pages") / "templates" / "style.css").read_text() + own.read_text()
        kind = "text/css"
    elif name == "dashboard.js":
        content = (resources.files("reports.dashboard") / "static" / "dashboard.js").read_text()
        kind = "text/javascript"
    else:
        return PlainTextResponse("not found", 404)
    return Response(content, media_type=kind, headers={"cache-control": "max-age=3600"})


class Guard:
    """Turns away what is no reading, another host, or has no token; and forbids pages whatever they do not need."""

    def __init__(self, app: ASGIApp, token: str | None, hosts: Sequence[str]) -> None:
        self._app, self._token, self._hosts = app, token, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {name for name, _ in message["headers"]}
                more = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message["headers"], *(one for one in more if one[0] not in given)]
            await send(message)

        refused = self._refusal(Request(scope))
        await (self._app if refused is None else refused)(scope, receive, sending)

    def _refusal(self, request: Request) -> Response | None:
        if request.method not in ("GET", "HEAD"):
            return PlainTextResponse("this page only reads", 405, {"allow": "GET, HEAD"})
        if self._hosts and (request.url.hostname or "") not in self._hosts:
            return PlainTextResponse("there is nothing under this name", 400)
        if self._token is None:
            return None
        said = request.query_params.get("token")
        if said is not None and _same(said, self._token):
            rest = request.url.remove_query_params("token")
            path = "/" + rest.path.lstrip("/")  # of this host
            away = RedirectResponse(f"{path}?{rest.query}" if rest.query else path, 303)
            away.set_cookie(COOKIE, self._token, httponly=True, samesite="strict")
            return away
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        if _same(request.cookies.get(COOKIE, ""), self._token) or _same(bearer, self._token):
            return None
        return PlainTextResponse("open the address with the token that 'nas dashboard' has printed", 401)


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())
