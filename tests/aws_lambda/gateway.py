"""What stands in front of a Lambda function: requests become events, and its answers become responses.

After AWS's descriptions of the proxy integration of REST APIs (payload format 1.0), of HTTP APIs
(payload format 2.0) and of function URLs. The differences that matter here:

- 1.0 decodes the query and keeps repeated headers apart; the answer has `multiValueHeaders`.
- 2.0 keeps the query as it came, joins repeated headers by commas, and has cookies as a list of their
  own, in the answer too. The path begins with the stage unless that is `$default`.
"""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Literal
from urllib.parse import parse_qsl

import httpx2

Front = Literal["rest", "http", "url"]
FRONTS: list[Front] = ["rest", "http", "url"]
Handler = Callable[[dict[str, Any], Any], dict[str, Any]]


class Context:
    """The second argument of a handler."""

    function_name = "site"
    aws_request_id = "00000000-0000-0000-0000-000000000000"


class Gateway(httpx2.BaseTransport):
    """A transport to a handler; `prefix` is the stage or the base path, with its slash."""

    def __init__(self, handler: Handler, front: Front, prefix: str = "") -> None:
        self.handler = handler
        self.front = front
        self.prefix = prefix
        self.events: list[dict[str, Any]] = []

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        event = (_rest if self.front == "rest" else _http)(request, self.prefix)
        self.events.append(event)
        answer = self.handler(event, Context())
        headers: list[tuple[str, str]] = list((answer.get("headers") or {}).items())
        for name, values in (answer.get("multiValueHeaders") or {}).items():
            headers = [pair for pair in headers if pair[0].lower() != name.lower()]
            headers += [(name, value) for value in values]
        if self.front != "rest":
            assert not [name for name, _ in headers if name.lower() == "set-cookie"]
            headers += [("set-cookie", value) for value in answer.get("cookies") or []]
        body = answer.get("body") or ""
        raw = base64.b64decode(body) if answer.get("isBase64Encoded") else body.encode()
        return httpx2.Response(answer["statusCode"], headers=headers, content=raw, request=request)


def _parts(request: httpx2.Request) -> tuple[list[tuple[str, str]], str, str, str | None, bool]:
    headers = [
        *((name.lower(), value) for name, value in request.headers.multi_items()),
        ("x-forwarded-proto", request.url.scheme),
        ("x-forwarded-port", "443"),
        ("x-forwarded-for", "203.0.113.9"),
    ]
    path, _, query = request.url.raw_path.decode().partition("?")
    body = request.read()
    try:
        return headers, path, query, body.decode() if body else None, False
    except UnicodeDecodeError:
        return headers, path, query, base64.b64encode(body).decode(), True


def _rest(request: httpx2.Request, prefix: str) -> dict[str, Any]:
    headers, path, query, body, coded = _parts(request)
    several: dict[str, list[str]] = defaultdict(list)
    for name, value in headers:
        several[name.title()].append(value)
    parameters: dict[str, list[str]] = defaultdict(list)
    for name, value in parse_qsl(query, keep_blank_values=True):
        parameters[name].append(value)
    return {
        "resource": "/{proxy+}",
        # A stage is not in it, the base path of a custom domain is.
        "path": prefix + path,
        "httpMethod": request.method,
        "headers": {name: values[-1] for name, values in several.items()},
        "multiValueHeaders": dict(several),
        "queryStringParameters": {name: values[-1] for name, values in parameters.items()} or None,
        "multiValueQueryStringParameters": dict(parameters) or None,
        "pathParameters": {"proxy": path.lstrip("/")},
        "stageVariables": None,
        "requestContext": {
            "path": prefix + path,
            "stage": "live",
            "httpMethod": request.method,
            "protocol": "HTTP/1.1",
            "domainName": request.url.host,
            "identity": {"sourceIp": "203.0.113.9", "userAgent": "test"},
        },
        "body": body,
        "isBase64Encoded": coded,
    }


def _http(request: httpx2.Request, prefix: str) -> dict[str, Any]:
    headers, path, query, body, coded = _parts(request)
    cookies: list[str] = []
    joined: dict[str, str] = {}
    for name, value in headers:
        if name == "cookie":
            cookies += value.split("; ")
        else:
            joined[name] = f"{joined[name]},{value}" if name in joined else value
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": prefix + path,
        "rawQueryString": query,
        "headers": joined,
        "requestContext": {
            "domainName": request.url.host,
            "stage": prefix.lstrip("/") or "$default",
            "http": {
                "method": request.method,
                "path": prefix + path,
                "protocol": "HTTP/1.1",
                "sourceIp": "203.0.113.9",
                "userAgent": "test",
            },
        },
        "isBase64Encoded": coded,
    }
    if cookies:
        event["cookies"] = cookies
    if body is not None:
        event["body"] = body
    return event
