"""Per login: from the first request to the answer to the callback, without the provider's own time.

The provider runs in a process of its own, and what the person's browser does there is not timed, so
the CPU time is the application's: start, token request, checks, session. Beside it stands the bare
token request by a pooled client. Everybody signs in by the token request and the ID token alone, where
the package can; rows that also ask the userinfo endpoint say so.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from urllib.parse import parse_qs, urlsplit

import httpx2

from .api_server import make_certificates, trusting
from .apps import Place
from .driver import Answer, AsgiDriver, WsgiDriver
from .login_apps import ASGI_LOGINS, WSGI_LOGINS, Site
from .measure import Batch, Plan, Spent, Subject, Watch
from .provider import BASE, CALLBACKS, CLIENT_ID, CLIENT_SECRET, PEOPLE, Remote, provider_process
from .results import Results

#: Of which twenty at once would tell nothing that the others do not.
_NOT_TOGETHER = ("as documented", "memory store")
TOKEN_REQUEST = "the bare token request (httpx2, pooled)"


def token_request(remote: Remote, url: str) -> Subject:
    """One POST of a code to the token endpoint: what no login can do without."""

    def make(stack: ExitStack) -> Batch:
        runner = stack.enter_context(asyncio.Runner())
        client = httpx2.AsyncClient(auth=(CLIENT_ID, CLIENT_SECRET), timeout=30)
        stack.callback(lambda: runner.run(client.aclose()))

        async def many(count: int) -> Spent:
            watch = Watch()
            backs = [remote.authorize(remote.authorization_url(url)) for _ in range(count)]
            for back in backs:
                code = parse_qs(urlsplit(back).query)["code"][0]
                form = {"grant_type": "authorization_code", "code": code}
                with watch:
                    answer = await client.post(
                        f"{url}/oauth2/token", data={**form, "redirect_uri": BASE + CALLBACKS[0]}
                    )
                    assert answer.json()["id_token"]
            return watch.spent

        return lambda count: runner.run(many(count))

    return Subject(TOKEN_REQUEST, make)


def _location(answer: Answer) -> str:
    assert answer.status in (302, 303, 307), (answer.status, answer.body[:500])
    return answer.header("location")


def _jar(answer: Answer) -> str:
    return "; ".join(f"{name}={value}" for name, value in answer.cookies().items())


def _callback(back: str) -> tuple[str, str]:
    parts = urlsplit(back)
    return parts.path, parts.query


def _authorized(remote: Remote, started: list[Answer]) -> list[tuple[str, str]]:
    """The people's part, for all of a batch before the callbacks begin: a server is busy with its own
    work, and not each time in the middle of another program's."""
    return [
        _callback(remote.authorize(_location(answer), person % PEOPLE))
        for person, answer in enumerate(started)
    ]


def _done(answer: Answer) -> None:
    assert answer.status in (200, 302, 303, 307), (answer.status, answer.body[:500])
    assert answer.cookies() or answer.body == b"signed in", "nobody was signed in"


def asgi_login(
    site: Site, remote: Remote, url: str, place: Place, together: int = 1, *, callback_only: bool = False
) -> Subject:
    """Logins over ASGI; `together` of them at once count as so many operations."""

    def make(stack: ExitStack) -> Batch:
        driver = AsgiDriver(site.make(url, place), stack)

        async def many(count: int) -> Spent:
            watch, groups = Watch(), []
            for _ in range(count):
                with contextlib.nullcontext() if callback_only else watch:
                    ways = [driver.ask(site.start) for _ in range(together)]
                    groups.append(await asyncio.gather(*ways) if together > 1 else [await ways[0]])
            for started, backs in [(started, _authorized(remote, started)) for started in groups]:
                with watch:
                    ends = [
                        driver.ask(path, _jar(answer), query)
                        for (path, query), answer in zip(backs, started, strict=True)
                    ]
                    ended = await asyncio.gather(*ends) if together > 1 else [await ends[0]]
                for answer in ended:
                    _done(answer)
            return watch.spent

        return lambda count: driver.runner.run(many(count))

    name = f"{site.name}, callback only" if callback_only else site.name
    return Subject(name, make, each=together)


def wsgi_login(site: Site, remote: Remote, url: str, place: Place, together: int = 1) -> Subject:
    """The same over WSGI; at once means in as many threads."""

    def make(stack: ExitStack) -> Batch:
        driver = WsgiDriver(site.make(url, place), stack)
        pool = stack.enter_context(ThreadPoolExecutor(together)) if together > 1 else None
        each: Callable[..., list[Answer]] = lambda work, *lists: list(  # noqa: E731
            pool.map(work, *lists) if pool else map(work, *lists)
        )

        def many(count: int) -> Spent:
            watch, groups = Watch(), []
            for _ in range(count):
                with watch:
                    groups.append(each(lambda _: driver.get(site.start), range(together)))
            for started, backs in [(started, _authorized(remote, started)) for started in groups]:
                with watch:
                    ended = each(
                        lambda back, answer: driver.get(back[0], _jar(answer), back[1]), backs, started
                    )
                for answer in ended:
                    _done(answer)
            return watch.spent

        return many

    return Subject(site.name, make, each=together)


def new_connections(results: Results, remote: Remote, place: Place) -> None:
    """How many connections to the provider a login of ours opens once the first one is through."""
    with ExitStack() as stack:
        (site,) = [site for site in ASGI_LOGINS if site.name == "oauthgate (Starlette)"]
        batch = asgi_login(site, remote, remote.urls["http"], place).make(stack)
        batch(2)
        before = remote.counted()
        count = 3 if results.quick else 20
        batch(count)
        after = remote.counted()
        # The look at the counter is itself a connection, but not one that is counted.
        results.number(
            "new connections in each login", (after["connections"] - before["connections"]) / count
        )
        results.number("token requests in each login", (after["token"] - before["token"]) / count)


def run(results: Results, place: Place) -> None:
    """The part."""
    os.environ["OAUTHLIB_INSECURE_TRANSPORT"] = "1"  # Flask-Dance refuses http even on loopback
    certificates = make_certificates(place.folder)
    with trusting(certificates.bundle), provider_process(certificates) as remote:
        plan = results.plan.but(rounds=5, seconds=0.05)
        plan = Plan(plan.rounds, plan.seconds, 1, 100)
        for scheme, url in remote.urls.items():
            results.table(
                f"login {scheme}",
                f"A login over {scheme} (CPU of the application, start and callback)",
                [
                    token_request(remote, url),
                    *(asgi_login(site, remote, url, place) for site in ASGI_LOGINS),
                    *(
                        asgi_login(site, remote, url, place, callback_only=True)
                        for site in ASGI_LOGINS[:2]
                    ),
                    *(wsgi_login(site, remote, url, place) for site in WSGI_LOGINS),
                ],
                plan=plan,
            )
            if results.quick:
                break
        together = 3 if results.quick else 20
        url = remote.urls["http"]
        few = Plan(min(3, plan.rounds), plan.seconds, 1, 1)
        for title, count in (("in a row", 1), ("at once", together)):
            sites = [each for each in ASGI_LOGINS if each.name.split(", ")[-1] not in _NOT_TOGETHER]
            results.table(
                f"logins {title}",
                f"{together} logins {title} (of each)",
                [
                    *(asgi_login(site, remote, url, place, count) for site in sites),
                    *(wsgi_login(site, remote, url, place, count) for site in WSGI_LOGINS[:3]),
                ],
                plan=few if count > 1 else Plan(few.rounds, few.seconds, together, together),
            )
        new_connections(results, remote, place)
