"""Per service call: to a local server over http and https, from one to a hundred at once.

The base is one pooled httpx2 client with a constant header: no client on httpx2 can cost less. First
the clients alone, then whole handlers: who is it, call the service, answer.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, NamedTuple

import httpx2

import oauthgate

from . import handlers
from .api_server import api_server, make_certificates, trusting
from .apps import Place
from .measure import Batch, Missing, Plan, Spent, Subject, Watch
from .oauth1 import intact, signing
from .peers import peer
from .results import Results
from .site import ACCESS_TOKEN, make_config, make_link, seed, service

Call = Callable[[], Awaitable[Any]]
IDLE = 20
CONCURRENT = (1, 10, 100)
POOLED = "httpx2, pooled, constant header"
OVER_AIOHTTP = "oauthgate, bearer, over aiohttp"


def constant(url: str) -> httpx2.AsyncClient:
    """The base: one client, its connections kept, a constant header."""
    return httpx2.AsyncClient(
        base_url=f"{url}/0/api/",
        headers={"Authorization": f"Bearer {ACCESS_TOKEN}"},
        limits=httpx2.Limits(max_connections=200, max_keepalive_connections=200),
        timeout=30,
    )


async def together(calls: list[Call], concurrent: int) -> None:
    """The calls, so many at once."""
    if concurrent == 1:
        for call in calls:
            checked(await call())
        return
    for start in range(0, len(calls), concurrent):
        for answer in await asyncio.gather(*(call() for call in calls[start : start + concurrent])):
            checked(answer)


def checked(answer: Any) -> None:
    """Only a 200 counts."""
    assert answer.status_code == 200, answer.status_code


def pooled(url: str, concurrent: int) -> Subject:
    """The base as a subject."""

    def make(stack: ExitStack) -> Batch:
        runner = stack.enter_context(asyncio.Runner())
        client = constant(url)
        stack.callback(lambda: runner.run(client.aclose()))

        def batch(count: int) -> None:
            runner.run(together([lambda: client.get("me")] * (count * concurrent), concurrent))

        return batch

    return Subject(POOLED, make)


def by_aiohttp(url: str, concurrent: int) -> Subject:
    """aiohttp with a constant header: what another client than httpx2 would cost."""

    def make(stack: ExitStack) -> Batch:
        aiohttp = peer("aiohttp")
        runner = stack.enter_context(asyncio.Runner())
        headers = {"Authorization": f"Bearer {ACCESS_TOKEN}"}

        async def open_session() -> Any:
            connector = aiohttp.TCPConnector(limit=200, keepalive_timeout=120)
            return aiohttp.ClientSession(f"{url}/0/api/", headers=headers, connector=connector)

        session = runner.run(open_session())
        stack.callback(lambda: runner.run(session.close()))

        async def call() -> _Status:
            async with session.get("me") as answer:
                await answer.read()
                return _Status(answer.status)

        def batch(count: int) -> None:
            runner.run(together([call] * (count * concurrent), concurrent))

        return batch

    return Subject("aiohttp, pooled, constant header", make)


class _Status(NamedTuple):
    """The status of an answer, by httpx2's name for it."""

    status_code: int


def gated(
    name: str, url: str, concurrent: int, kind: str = "bearer", idle: int = 0, transport: str = "httpx2"
) -> Subject:
    """A service of ours. Each call takes the service anew, as each request of a handler does.

    What reads the visitor's record is not timed here but in the handlers. `idle` other services have
    been called once before and keep their connection.
    """

    def make(stack: ExitStack) -> Batch:
        runner = stack.enter_context(asyncio.Runner())
        if transport != "httpx2":
            peer(transport)
        more, links = _tables(kind, url)
        config = make_config(f"memory:{name}{url}{concurrent}", api=url, services=1 + idle, **more)
        now = time.time()
        config["oauthgate"]["transport"] = transport
        links = links or [make_link(service(number), "1", now) for number in range(1 + idle)]
        user_id = seed(config, links)[0].partition(".")[0]
        opening = oauthgate.open(config)
        gate = runner.run(opening.__aenter__())
        stack.callback(lambda: runner.run(opening.__aexit__(None, None, None)))
        wanted = next(iter(more), service(0))

        async def warm() -> None:
            services = await gate.services(user_id)
            for number in range(1, 1 + idle):
                checked(await services[service(number)].get("me"))

        async def many(count: int) -> Spent:
            every = [await gate.services(user_id) for _ in range(count * concurrent)]
            # `found` is bound early: each call takes the service of its own visitor.
            calls: list[Call] = [lambda found=found: found[wanted].get("me") for found in every]  # type: ignore[misc]
            watch = Watch()
            with watch:
                await together(calls, concurrent)
            return watch.spent

        runner.run(warm())
        return lambda count: runner.run(many(count))

    return Subject(name, make)


def _tables(kind: str, url: str) -> tuple[dict[str, Any], list[Any]]:
    """The provider's table and the link of a kind of token; nothing for bearer tokens."""
    now = time.time()
    if kind == "oauth1":
        table = {
            "client_id": "consumer",
            "client_secret": "s" * 32,
            "request_token_url": f"{url}/one/request_token",
            "authorization_endpoint": f"{url}/one/authorize",
            "token_endpoint": f"{url}/one/access_token",
            "userinfo_endpoint": f"{url}/one/me",
            "api_base_url": f"{url}/one/api",
            "profile": {"id": "id"},
        }
        token = {"token_secret": "t" * 43, "refresh_token": "", "expires_at": None}
        return {"one": table}, [make_link("one", "1", now, **token)]
    if kind == "dpop":
        try:
            from oauthgate.protocols import dpop
        except ImportError:
            raise Missing("this oauthgate has no DPoP") from None
        config = make_config("memory:", api=url, services=1)
        bound: dict[str, Any] = {**config["providers"][service(0)], "dpop": True}
        link = make_link("bound", "1", now, token_type="DPoP", dpop_key=dpop.new_key())
        return {"bound": bound}, [link]
    return {}, []


def authlib(name: str, url: str, concurrent: int, tuned: bool) -> Subject:
    """Authlib's Starlette registry: `oauth.NAME.get(path, token=…)` as its documentation shows.

    Tuned: all clients share one TLS context (`client_kwargs`), which the documentation does not tell.
    """

    def make(stack: ExitStack) -> Batch:
        runner = stack.enter_context(asyncio.Runner())
        client = handlers.authlib_starlette(url, tuned)

        def batch(count: int) -> None:
            call: Call = lambda: client.get("me", token=handlers.TOKEN)  # noqa: E731
            runner.run(together([call] * (count * concurrent), concurrent))

        return batch

    return Subject(name, make)


def run(results: Results, place: Place) -> None:
    """The part."""
    certificates = make_certificates(place.folder)
    with trusting(certificates.bundle), api_server(certificates) as urls:
        ssl.create_default_context()  # read once, so that the first subject does not wait for the disk
        for scheme, url in urls.items():
            for concurrent in CONCURRENT[: 1 if results.quick else None]:
                _clients(results, scheme, url, concurrent)
            # Every table has its own plan: Authlib's 20 ms a call would take the whole time otherwise.
            plan = results.plan.but(seconds=0.1)
            for framework in ("starlette", "flask"):
                results.table(
                    f"handler {framework} {scheme}",
                    f"A handler that calls a service over {scheme} ({framework.title()})",
                    handlers.subjects(framework, url, place),
                    plan=Plan(plan.rounds, plan.seconds, 2, plan.most),
                )
        results.table("signing", "Signing a request by OAuth 1.0a (no request is sent)", signing())
        whole, of = intact(urls["http"])
        results.number("bodies that arrive intact, oauthgate OAuth 1.0a", whole)
        results.number("bodies sent", of)


def _clients(results: Results, scheme: str, url: str, concurrent: int) -> None:
    plan = results.plan.but(seconds=0.1)
    subjects = [
        pooled(url, concurrent),
        by_aiohttp(url, concurrent),
        gated("oauthgate, bearer", url, concurrent),
        gated(OVER_AIOHTTP, url, concurrent, transport="aiohttp"),
        gated("oauthgate, OAuth 1.0a", url, concurrent, "oauth1"),
        gated("oauthgate, DPoP", url, concurrent, "dpop"),
        authlib("Authlib on Starlette, as documented", url, concurrent, tuned=False),
        authlib("Authlib on Starlette, tuned", url, concurrent, tuned=True),
    ]
    if concurrent == 100:
        del subjects[6]  # two seconds for each hundred, and no news
    if concurrent == 1:
        subjects.insert(3, gated(f"oauthgate, bearer, {IDLE} idle services", url, 1, idle=IDLE))
    results.table(
        f"call {scheme} {concurrent}",
        f"A service call over {scheme}, {concurrent} at once (CPU of each call)",
        [replace(subject, each=concurrent) for subject in subjects],
        plan=Plan(plan.rounds if concurrent < 100 else min(3, plan.rounds), plan.seconds, 1, 500),
    )
