"""The page answers under its own names alone: another site's script, or a name bent to this machine, gets 403."""

import socket
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

HERE = ("localhost", "127.0.0.1", "::1")
EVERYWHERE = ("0.0.0.0", "::")
REFUSED = "this page is not served under that name"


class OwnNamesOnly:
    """An ASGI application that passes on what the page's own address is asked for (Host) and from (Origin)."""

    def __init__(self, app: Any, host: str) -> None:
        self.app, self.host = app, host.lower()

    async def __call__(self, scope: dict, receive: Any, send: Any) -> None:
        """Pass the request on, or refuse it: 403, and a socket is not opened."""
        if scope["type"] == "lifespan" or self._own(scope["headers"]):
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})  # before it is accepted the server answers 403
        else:
            words = [(b"content-type", b"text/plain")]
            await send({"type": "http.response.start", "status": 403, "headers": words})
            await send({"type": "http.response.body", "body": REFUSED.encode()})

    def _own(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        names = {b"host": [], b"origin": []}
        for key, value in headers:
            if key in names:
                names[key].append(value.decode("latin-1"))
        asked = [f"//{host}" for host in names[b"host"]] + names[b"origin"]
        return len(names[b"host"]) == 1 and all(self._known(address) for address in asked)

    def _known(self, address: str) -> bool:
        try:
            name = urlsplit(address).hostname or ""
            if name in (*HERE, self.host):
                return True
            own = socket.gethostname().lower()  # the machine's name, or its number: no other site can take these
            return self.host in EVERYWHERE and (name in (own, f"{own}.local") or bool(ip_address(name)))
        except ValueError:
            return False


def own_names_only(host: str) -> list:
    """The middleware for a page that is served at `host`."""
    from starlette.middleware import Middleware  # comes with gradio, which is optional

    return [Middleware(OwnNamesOnly, host=host)]
