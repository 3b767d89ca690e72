"""HTTP as a service: what handlers reach the world with."""

from __future__ import annotations

import json
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

import attrs

from durable_effect import Effect, TypedError

__all__ = ["Unavailable", "Web"]

_TIMEOUT_S = 5.0
_opener = build_opener(ProxyHandler({}))  # the demo's world is on this machine: a proxy could not reach it


@attrs.frozen
class Unavailable(TypedError):
    """The other side did not answer, or answered that it cannot."""

    request: str
    reason: str

    def __str__(self) -> str:
        return f"{self.request}: {self.reason}"


@attrs.frozen
class Web:
    """JSON over HTTP, below one address. Each call blocks a thread, not the loop."""

    url: str

    def get(self, path: str) -> Effect[Any, Unavailable]:
        """What is at ``path``."""
        return self._call("GET", path, None)

    def post(self, path: str, body: object) -> Effect[Any, Unavailable]:
        """The answer to ``body``."""
        return self._call("POST", path, body)

    def put(self, path: str, body: object) -> Effect[Any, Unavailable]:
        """Have ``body`` at ``path``, in place of what was there."""
        return self._call("PUT", path, body)

    def _call(self, method: str, path: str, body: object) -> Effect[Any, Unavailable]:
        data = None if body is None else json.dumps(body).encode()
        request = Request(self.url + path, data, {"Content-Type": "application/json"}, method=method)  # noqa: S310 - the demo's own address

        def answer() -> Any:
            with _opener.open(request, timeout=_TIMEOUT_S) as response:
                return json.load(response)

        return Effect.from_thread(answer, lambda error: Unavailable(f"{method} {path}", str(error)))
