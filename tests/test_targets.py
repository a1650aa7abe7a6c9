"""Return targets: no spelling of another site gets past the validator, judged as a browser resolves it.

The payloads are generated: every class of trick in every place. They are resolved with the WHATWG URL
parser (ada), not with Python's, whose leniency is what such attacks live from.
"""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from urllib.parse import unquote

import ada_url
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oauthgate.targets import DEFAULT, MAX_LENGTH, return_target, safe_target
from oauthgate.testing import LocalProvider, running
from tests.support import KINDS, Kind, make_config, make_provider, site_under_test

PREFIX = "/_oauth"
BASE = "https://app.example"
EVIL = ("evil.example", "app.example.evil.example", "app.example@evil.example", "evil.example:443")
#: What a browser drops, or takes for a slash, or shows as one.
GAPS = (
    "", "\t", "\n", "\r", "\r\n", "\x0b", "\x0c", " ", "\x00", "\x01", "\x1f", "\x7f", "\u00a0",
    "\u2028",
    "\u3000", "\ufeff", "\u200b", "%09", "%0a", "%0d", "%0b", "%0c", "%20", "%00", "%2509", "%e2%80%a8",
)  # fmt: skip
SLASHES = (
    "/", "\\", "／", "⁄", "∕", "%2f", "%2F", "%5c", "%5C", "%252f", "%255c", "%ef%bc%8f", "/.", "/./",
    "/..",
    "/../", "/%2e", "/%2e%2e/", "/;", "/.;/", "/..;/", "/x/../", "/x/..;/", "\\.", "%2e/", "/%2e/",
)  # fmt: skip
SCHEMES = (
    "http:", "https:", "HTTPS:", "hTtP:", "ftp:", "javascript:", "JaVaScRiPt:", "data:", "vbscript:",
    "file:",
    "blob:", "about:", "mailto:", "ws:", "intent:", "java\tscript:", "java\nscript:", " javascript:",
    "\x01javascript:", "view-source:", "//https:", "x-app:",
)  # fmt: skip


def generated() -> list[str]:
    """Payloads of every class, each once."""
    found: list[str] = []
    for host in EVIL:
        for first, gap, second in itertools.product(SLASHES, GAPS, SLASHES[:13]):
            if (gap == "" or second in "/\\") and (first in "/\\" or gap in ("", "\t", "%09")):
                found.append(f"{first}{gap}{second}{host}")
                found.append(f"{gap}{first}{second}{host}/path?x=1#y")
        for scheme in SCHEMES:
            found += [f"{scheme}{host}", f"{scheme}//{host}", f"{scheme}\\\\{host}", f"{scheme}/{host}/"]
        found += [
            f"/login/..//{host}",
            f"/a/b/../..//{host}",
            f"/./{host}",
            f"//{host}/%2f..",
            f"/{host}//",
        ]
        found += [
            f"{host}",
            f"?next=//{host}",
            f"#//{host}",
            f".{host}",
            f"@{host}",
            f":{host}",
            f"/@{host}",
        ]
        found += [
            f"///{host}",
            f"////{host}",
            f"/////{host}",
            f"/\\/{host}",
            f"\\/\\/{host}",
            f"/%5c/{host}",
        ]
    tricks = [
        "https://app.example@evil.example", "https://app.example:x@evil.example", "https://evil\\@app.example",
        "https://evil.example\\.app.example", "https://app.example.evil.example", "https://evilapp.example",
        "https://app.example", "https://app.example/", "https://app.example/who", "//app.example/who",
        "http://[", "http://[::1", "http://[::1]]", "//[", "/[", "https://app.example:99999/",
        "//a:99999",
        "https://１２７.0.0.1", "https://ａｐｐ.example", "https://app。example", "https://xn--",
        "//ⓔvil.example",
        "/who\r\nSet-Cookie: a=b", "/who%0d%0aSet-Cookie:%20a=b", "/who\x00", "/\ud800", "/é", "/%",
        "/%zz",
        "/%e", "/%c0%af", "/%c0%af%c0%afevil.example", "/%u002f", "/" + "a" * 513, "/?" + "a" * 600,
        "/who<script>", '/who"onload="', "/who'", "/{{7*7}}", "/who|x", "/who^", "/who`id`", "/a b", "",
    ]  # fmt: skip
    own = ("logout", "github/login", "github/callback", "github/link", "session", "session/refresh", "x")
    for route, prefix in itertools.product(
        own, (PREFIX, "/_OAUTH", "/%5foauth", "/%5Foauth", "/_o%61uth", "/%255foauth")
    ):
        tricks += [f"{prefix}/{route}", f"{prefix}/{route}?a=b", f"{prefix}%2f{route}"]
    return list(dict.fromkeys([*found, *tricks]))


PAYLOADS = generated()


def resolved(location: str) -> tuple[str, str, str]:
    """Scheme, host and port where a browser that is at the base would go."""
    url = ada_url.URL(location, base=f"{BASE}/some/page")
    return url.protocol, url.hostname, url.port


def assert_harmless(target: str) -> None:
    """What row 3 asks of an emitted path, raw and once decoded, and where a browser takes it."""
    assert target.startswith("/") and target.isascii() and target.isprintable()
    path = target.partition("?")[0]
    for form in (path, unquote(path), unquote(unquote(path))):
        assert "//" not in form and "\\" not in form, target
        assert not re.search(r"(^|/)\.\.?(/|$)", form), target
        assert not form.lower().startswith(PREFIX + "/"), target
        assert all(character.isprintable() for character in form), target
    # An application may add a slash to a path that has none at its end.
    longer = target if path.endswith("/") else path + "/" + target[len(path) :]
    for location in (BASE + target, target, BASE + longer, longer):
        assert resolved(location) == ("https:", "app.example", ""), target


def test_the_generator_covers_its_classes() -> None:
    """Row 1: some thousand payloads, most of which really lead a browser off the site."""
    assert len(PAYLOADS) >= 800
    leaving = 0
    for payload in PAYLOADS:
        try:
            leaving += resolved(payload.encode("utf-8", "replace").decode())[1] != "app.example"
        except ValueError:
            continue
    assert leaving > 600


def test_no_payload_leaves_the_site() -> None:
    """Rows 1, 2, 3, 5, 6: each payload becomes the default target, or a path that stays in every
    reading."""
    accepted = []
    for payload in PAYLOADS:
        target = return_target(payload, PREFIX)
        if target is not None:
            assert target == payload, "nothing is repaired"
            assert_harmless(target)
            accepted.append(target)
        assert safe_target(payload, PREFIX) in (DEFAULT, payload)
    assert len(accepted) < len(PAYLOADS) / 20, accepted


GOOD = [
    "/", "/who", "/a/b/c", "/a/b/", "/a.b/c.html", "/.well-known/x", "/a..b", "/a?b=c&d=e",
    "/a?x=%2F%2Fb", "/~ada",
    "/a?next=//evil.example", "/a?u=https://evil.example/", "/%41", "/caf%C3%A9", "/a;b=c", "/a:b",
    "/@ada", "/a,b",
    "/_oauth", "/_oauth?message=signed_out", "/_oauthx/y", "/x/_oauth/logout",
    "/" + "a" * (MAX_LENGTH - 1), "/a?",
    "/(a)!$'*+", "/a?b=%0d%0a", "/...", "/.../x",
]  # fmt: skip


@pytest.mark.parametrize("target", GOOD)
def test_ordinary_targets_are_kept(target: str) -> None:
    """Row 1: paths and queries of this site come back unchanged; a query may hold what it likes."""
    assert return_target(target, PREFIX) == target
    assert_harmless(target)


def test_nothing_is_no_target() -> None:
    """A missing target is the default one."""
    assert return_target(None, PREFIX) is None
    assert safe_target(None, PREFIX) == "/"


@given(
    st.lists(
        st.sampled_from(
            [*SLASHES, *GAPS, *SCHEMES, *EVIL, "?", "#", "@", ":", ".", "..", "%", "a", PREFIX, "%2e"]
        ),
        max_size=8,
    ).map("".join)
)
@settings(max_examples=3000, deadline=None, derandomize=True)
def test_mixtures_never_leave_the_site(payload: str) -> None:
    """Rows 1 to 3: random mixtures of all the tricks."""
    target = return_target(payload, PREFIX)
    if target is not None:
        assert_harmless(target)


@given(st.text(max_size=60).map(lambda text: "/" + text))
@settings(max_examples=1500, deadline=None, derandomize=True)
def test_any_text_is_safe(payload: str) -> None:
    """Rows 2 and 4: any text whatever: accepted only when harmless, and never an error."""
    target = return_target(payload, PREFIX)
    if target is not None:
        assert_harmless(target)


@pytest.mark.parametrize("kind", KINDS)
def test_whole_flows_end_on_the_site(kind: Kind, tmp_path: Path) -> None:
    """Rows 1 and 4: through login and callback, a sample of every payload class ends in-site, with no
    header but ours."""
    provider: LocalProvider = make_provider(BASE, auto_approve="ada")
    with running(provider) as url, site_under_test(kind, make_config(url, tmp_path, BASE)) as site:
        for payload in PAYLOADS[:: len(PAYLOADS) // 40]:
            if any(0xD800 <= ord(character) <= 0xDFFF for character in payload):
                continue
            browser = site.browser()
            started = browser.get("/_oauth/spotify/login", params={"next": payload})
            assert started.status_code in (303, 400), payload
            if started.status_code == 303:
                answer = browser.get(site.authorize(started.headers["location"]))
                assert answer.status_code == 303
                assert resolved(answer.headers["location"]) == ("https:", "app.example", "")
                names = {name.partition("=")[0] for name in answer.headers.get_list("set-cookie")}
                assert all(name.startswith("__Host-oauthgate") for name in names)
