"""The routes of a server, as one ASGI application."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from importlib import resources
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive

from laconic.decode.search import Decoding
from laconic.errors import ConfigError, printable
from laconic.serve import docs, openapi
from laconic.serve.bodies import is_form
from laconic.serve.guard import Guard, Log
from laconic.serve.metrics import CONTENT_TYPE
from laconic.serve.service import Service

PAGE = {  # path -> file in page/, and what it is
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
GONE = 499  # as nginx calls it: whoever asked has left, and nobody gets to see this
_PLAIN = {
    404: "there is nothing at this path; /docs says what there is",
    405: "wrong method; /docs says which one is right",
}
Endpoint = Callable[[Request], Awaitable[Response]]
T = TypeVar("T")


def make_app(service: Service, log: Log | None = None) -> ASGIApp:
    """The application; `log` is given a line for each request. `service` belongs to one event loop."""
    routes = [Route(path, _file(name, kind)) for path, (name, kind) in PAGE.items()]
    routes += [Route(path, endpoint) for path, endpoint in API.items()]
    routes.append(Route("/caption", _caption, methods=["POST"]))
    app = Starlette(routes=routes, exception_handlers={HTTPException: _refused, Exception: _failed})
    app.router.redirect_slashes = False
    app.state.service, app.state.document = service, openapi.document(service)
    return Guard(app, service, [route.path for route in routes], log)


# Endpoints


async def _caption(request: Request) -> Response:
    service: Service = request.app.state.service
    with service.accept():
        decoding = decoding_of(request.query_params, service)
        try:
            photos = await service.uploads.read(request)
            started = asyncio.get_running_loop().time()
            try:
                answers = await _unless_gone(request.receive, service.answer(photos, decoding))
            finally:
                for photo in photos:
                    photo.forget()
        except ClientDisconnect:
            return Response(status_code=GONE)
        taken = asyncio.get_running_loop().time() - started
    refused = sum("error" in answer for answer in answers)
    service.metrics.captioned(len(answers) - refused, refused)
    content = {"milliseconds": round(1000 * taken, 1), "images": answers}
    # a form is answered for each of its images; where the image is the whole body, its error is that of the request
    return JSONResponse(content, 422 if refused and not is_form(request.headers.get("content-type", "")) else 200)


async def _info(request: Request) -> Response:
    service: Service = request.app.state.service
    granted = service.settings
    return JSONResponse(
        {
            "captioner": service.name,
            "engine": service.engine.name,
            "version": openapi.VERSION,
            "beam": granted.decoding.beam,
            "max_length": granted.decoding.max_length,
            "limits": {
                "beam": granted.most_beam,
                "max_length": granted.most_length,
                "images": granted.max_images,
                "bytes": granted.body_bytes,
                "pixels": granted.pixels,
            },
        }
    )


async def _health(request: Request) -> Response:
    stopping = request.app.state.service.stopping
    return JSONResponse({"status": "stopping" if stopping else "ready"}, 503 if stopping else 200)


async def _metrics(request: Request) -> Response:
    return Response(request.app.state.service.metrics.text(), media_type=CONTENT_TYPE)


async def _openapi(request: Request) -> Response:
    return JSONResponse(request.app.state.document)


async def _docs(request: Request) -> Response:
    return Response(docs.page(request.app.state.document, str(request.base_url)), media_type="text/html")


API: dict[str, Endpoint] = {
    "/info": _info, "/health": _health, "/metrics": _metrics, "/openapi.json": _openapi, "/docs": _docs,
}  # fmt: skip


def _file(name: str, kind: str) -> Endpoint:
    """What answers with one file of the page, which is read now: no request names a file."""
    content = resources.files("laconic.serve").joinpath("page", name).read_bytes()

    async def endpoint(request: Request) -> Response:
        return Response(content, media_type=kind)

    return endpoint


async def _refused(request: Request, error: Any) -> Response:
    said = _PLAIN.get(error.status_code, error.detail)
    return JSONResponse({"error": said}, error.status_code, error.headers)


async def _failed(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "the server failed over this; its own log says why"}, 500)


# Requests


def decoding_of(query: QueryParams, service: Service) -> Decoding:
    """How a request wants captions searched. HTTPException (400) for what it cannot ask for."""
    granted = service.settings
    most = {"beam": granted.most_beam, "max_length": granted.most_length}
    asked: dict[str, int] = {}
    for name, value in query.multi_items():
        if name not in most:
            raise HTTPException(400, f"{printable(name)[:50]!r} is no parameter; there are {' and '.join(most)}")
        if name in asked:
            raise HTTPException(400, f"{name} is given twice; give it once")
        if not (value.isascii() and value.isdecimal() and len(value) < 5 and 1 <= int(value) <= most[name]):
            raise HTTPException(
                400, f"{name} is {printable(value)[:50]!r}, must be a whole number from 1 to {most[name]}"
            )
        asked[name] = int(value)
    usual = granted.decoding
    decoding = Decoding(asked.get("beam", usual.beam), asked.get("max_length", usual.max_length), usual.length_penalty)
    try:
        service.check(decoding)
    except ConfigError as error:
        raise HTTPException(400, str(error)) from None
    return decoding


async def _unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """What `work` comes to; ClientDisconnect, and it is cancelled, where the client goes before that."""
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return await task
    finally:
        for one in (task, gone):
            one.cancel()
        await asyncio.wait((task, gone))


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
