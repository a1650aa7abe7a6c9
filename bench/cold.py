"""A cold start: a new process until its first answer, as an AWS Lambda function has it.

The event is of an HTTP API, and the visitor anonymous. The rows of the client of DynamoDB say what comes
on top with the first signed-in visitor, before anything is sent: boto3's import and its description of
the service.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack

from .measure import Batch, Plan, Spent, Subject
from .peers import peer
from .processes import ROOT
from .results import Results

_EVENT = {
    "version": "2.0",
    "routeKey": "$default",
    "rawPath": "/page",
    "rawQueryString": "",
    "headers": {"host": "abc.execute-api.eu-central-1.amazonaws.com", "accept": "text/html"},
    "requestContext": {
        "stage": "$default",
        "http": {
            "method": "GET",
            "path": "/page",
            "protocol": "HTTP/1.1",
            "sourceIp": "203.0.113.9",
            "userAgent": "bench",
        },
    },
    "isBase64Encoded": False,
}
_CONFIG = {
    "oauthgate": {
        "base_url": "https://abc.execute-api.eu-central-1.amazonaws.com",
        "secret": "s" * 32,
        "store": "dynamodb://oauthgate?region=eu-central-1",
    },
    "providers": {
        name: {"client_id": "id", "client_secret": "s" * 32} for name in ("twitter", "spotify")
    },
}
_STARLETTE = """
import asyncio
asyncio.set_event_loop(asyncio.new_event_loop())
from mangum import Mangum
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
async def page(request):
    return PlainTextResponse("page")
app = Starlette(routes=[Route("/page", page)])
{gate}
handler = Mangum(app, lifespan="off")
"""
_FLASK = """
from apig_wsgi import make_lambda_handler
from flask import Flask
app = Flask("cold")
@app.get("/page")
def page():
    return "page"
{gate}
handler = make_lambda_handler(app)
"""
_GATE = "import oauthgate; oauthgate.install(app, {config})"
_CLIENT = """
import boto3
boto3.client("dynamodb", region_name="eu-central-1", aws_access_key_id="x", aws_secret_access_key="x")
"""
_WHOLE = """
import time
cpu, wall = time.process_time(), time.perf_counter()
{module}
assert handler({event}, None)["statusCode"] == 200
{more}
print(time.process_time() - cpu, time.perf_counter() - wall)
"""


def run(results: Results) -> None:
    """Two tables, one for each adapter."""
    plan = Plan(max(1, min(7, results.plan.rounds)), 1)
    for name, adapter, module in (("Starlette", "mangum", _STARLETTE), ("Flask", "apig_wsgi", _FLASK)):
        gate = _GATE.format(config=_CONFIG)
        results.table(
            f"cold {name}",
            f"A cold start with {name} and {adapter.replace('_', '-')}, to the first answer",
            [
                _subject(name, adapter, module.format(gate="")),
                _subject(f"{name} + oauthgate", adapter, module.format(gate=gate)),
                _subject(
                    f"{name} + oauthgate, and a client of DynamoDB",
                    adapter,
                    module.format(gate=gate),
                    _CLIENT,
                ),
            ],
            plan=plan,
        )


def _subject(name: str, adapter: str, module: str, more: str = "") -> Subject:
    def make(stack: ExitStack) -> Batch:
        peer(adapter)
        if more:
            peer("boto3")
        code = _WHOLE.format(module=module, event=_EVENT, more=more)

        def batch(count: int) -> Spent:
            said = subprocess.run(
                [sys.executable, "-c", code],
                capture_output=True,
                text=True,
                check=True,
                cwd=ROOT,
                env={**os.environ, "PYTHONDONTWRITEBYTECODE": "", "AWS_EC2_METADATA_DISABLED": "true"},
            )
            cpu, wall = map(float, said.stdout.split())
            return Spent(cpu, wall)

        batch(1)
        return batch

    return Subject(name, make, count=1)
