"""Requests to the Hub on loopback: their record, the routes that answer them, replies, and faults on demand."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass
class Request:
    """One request, and its answer: status, bytes of body."""

    method: str
    host: str
    path: str
    range: str | None = None
    token: str | None = None
    status: int = 0
    sent: int = 0
    body: bytes = field(default=b"", repr=False)

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.path).query)

    def concerns(self, part: str, method: str | None) -> bool:
        return part in unquote(self.path) and method in (None, self.method)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Reply:
    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class RefusedError(Exception):
    """Its one argument is the Reply that refuses."""


@dataclass
class Fault:
    """A fault of the next `times` requests whose path contains `part`, after `skip` that succeed."""

    part: str
    method: str | None
    times: int
    skip: int
    reply: Reply | None = None
    after: int | None = None
    stall: bool = False

    def strikes(self, asked: Request, reply: Reply | None = None) -> bool:
        """Whether it strikes now: with a reply of its own before the route answers, else while the body is sent."""
        timely = reply is None if self.reply else reply is not None and reply.status in (200, 206)
        if not (timely and self.times and asked.concerns(self.part, self.method)):
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.times -= 1
        return True


def served(content: Any, status: int = 200, **headers: str) -> Reply:
    return Reply(status, json.dumps(content).encode(), {"Content-Type": "application/json", **headers})


def refused(status: int, message: str, code: str = "", **headers: str) -> RefusedError:
    named = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
    return RefusedError(served({"error": message}, status, **named, **headers))


ROUTES: list[tuple[re.Pattern[str], Callable[..., Reply]]] = []
PARTS = {"repo": "[^/]+/[^/]+", "revision": "[^/]+", "path": ".+", "oid": "[0-9a-f]{64}"}


def route(methods: str, template: str) -> Callable[..., Any]:
    """Let a method of the server answer "GET|HEAD", "/{repo}/resolve/{revision}/{path}"."""
    pattern = re.sub(r"{(\w+)}", lambda name: f"(?P<{name[1]}>{PARTS[name[1]]})", template)

    def register(answer: Callable[..., Reply]) -> Callable[..., Reply]:
        ROUTES.append((re.compile(f"(?:{methods}) {pattern}"), answer))
        return answer

    return register


def part_of(data: bytes, wanted: str | None, headers: Mapping[str, str]) -> Reply:
    """The whole body, or the one range that the request names."""
    headers = {"Accept-Ranges": "bytes", **headers}
    match = re.fullmatch(r"bytes=(?=.*\d)(\d*)-(\d*)", wanted or "")
    if match is None:
        return Reply(200, data, headers)
    first, last = match.groups()
    start = int(first) if first else max(len(data) - int(last), 0)
    end = min(int(last) + 1, len(data)) if first and last else len(data)
    if start >= end:
        raise refused(416, "Range Not Satisfiable", **{"Content-Range": f"bytes */{len(data)}"})
    return Reply(206, data[start:end], headers | {"Content-Range": f"bytes {start}-{end - 1}/{len(data)}"})
