"""`nas dashboard`: the pages of a database in a browser, while searches run."""

from __future__ import annotations

import ipaddress
import os
import secrets
import socket
import sys
from contextlib import suppress
from typing import Annotated, Any
from urllib.parse import quote

import typer

from nas_cli.options import DEFAULT_DB, Db, Files, open_store

INSTALL = "the dashboard needs Starlette and Plotly; install them by: pip install 'nas-search[dashboard]'"
NICE = 5  # niceness of POSIX: behind searches, and still soon there on a busy machine
LOCAL = ("localhost", "127.0.0.1", "::1")


def dashboard(
    host: Annotated[str, typer.Option("--host", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="The port; 0 takes a free one.")] = 8080,
    token: Annotated[
        str | None,
        typer.Option(
            "--token",
            envvar="NAS_DASHBOARD_TOKEN",
            help="What a browser has to know [default: none on this machine alone, else one that is made up].",
        ),
    ] = None,
    db: Db = DEFAULT_DB,
    files: Files = None,
) -> None:
    """Show studies in a browser, live and read-only, until Ctrl-C."""
    from nas_cli import render
    from nas_core.errors import MachineError

    try:
        import uvicorn

        from reports.dashboard.app import application
        from reports.plotly_figure import script
    except ModuleNotFoundError:
        raise MachineError(INSTALL) from None
    script()  # says what to install
    with open_store(db, files, reading=True) as store:
        url, place = store.url, store.place
    local = _local(host)
    if token is None and not local:
        token = secrets.token_urlsafe(24)
    app = application(url, files, token=token, hosts=(*LOCAL, host) if local else ())
    bound = _bound(host, port)
    os.nice(NICE)  # searches on this machine come first
    try:
        address = f"http://{f'[{host}]' if ':' in host else host}:{bound.getsockname()[1]}/"
        render.emit(f"{address}?token={quote(token)}" if token else address)
        print(f"nas: shows {place}; stop it by Ctrl-C", file=sys.stderr)
        settings: Any = {"log_level": "warning", "access_log": False, "timeout_graceful_shutdown": 1, "lifespan": "off"}
        with suppress(KeyboardInterrupt):  # which ends it in good order
            uvicorn.Server(uvicorn.Config(app, **settings)).run(sockets=[bound])
    finally:
        bound.close()


def _local(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _bound(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises UsageError for a port that is taken, or an address that is none of ours."""
    from nas_core.errors import UsageError

    try:
        family, kind, protocol, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise UsageError(f"--host '{host}': {getattr(error, 'strerror', None) or error}") from None
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind(where)
        made.listen(128)  # who has read the address is answered
    except OSError as error:
        made.close()
        raise UsageError(
            f"port {port} of '{host}' cannot be used ({error.strerror}); take another one by --port, or a free one by "
            "--port 0"
        ) from None
    return made
