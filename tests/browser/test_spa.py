"""The single-page app in a real browser: signing in both ways, and what a script can read."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect
from werkzeug.serving import make_server

from oauthgate.testing import LocalProvider
from tests.servers import free_port
from tests.test_demo import demonstration

from .conftest import TIMEOUT, OpenPage
from .spa import RECORDER, SPA, press, running_spa, sign_in_by_popup, title


@pytest.fixture
def spa(tmp_path: Path) -> Iterator[SPA]:
    with running_spa(tmp_path) as found:
        yield found


def test_story_by_popup(spa: SPA, open_page: OpenPage) -> None:
    """Sign in and link in popups, call, outlive an expired token, post, sign out: and at no time is
    there anything for a script to steal."""
    page = open_page()
    page.add_init_script(RECORDER)
    page.goto(spa.base)
    title(page, "What are you listening to?")
    sign_in_by_popup(page)
    title(page, "Hello, Ada Lovelace")
    spa.assert_nothing_to_steal(page)
    sign_in_by_popup(page, "Link Spotify")
    expect(page.locator("#song")).to_contain_text("♪")
    spa.spotify.expire_access_tokens()
    with page.expect_response("**/api/player") as looked:
        press(page, "Look again")
    assert looked.value.ok
    assert spa.spotify.count["token"] == 2
    press(page, "Post it")
    expect(page.get_by_role("status")).to_have_text("Posted.")
    spa.assert_nothing_to_steal(page)
    press(page, "Sign out")
    title(page, "What are you listening to?")
    assert page.context.cookies(spa.base) == []
    page.reload()
    title(page, "What are you listening to?")
    assert spa.twitter.count["tweets"] == 1


def test_sign_in_by_redirect(spa: SPA, open_page: OpenPage) -> None:
    """Without a popup the browser leaves the page, and comes back to it signed in."""
    page = open_page()
    page.add_init_script(RECORDER)
    page.goto(f"{spa.base}/?tab=1")
    press(page, "Sign in without a popup")
    page.get_by_role("button", name="Allow as Ada Lovelace").click()
    title(page, "Hello, Ada Lovelace")
    assert page.url == f"{spa.base}/?tab=1"
    spa.assert_nothing_to_steal(page)


def test_refused_and_closed(spa: SPA, open_page: OpenPage) -> None:
    """A popup in which somebody says no, or that is closed, says so in the page; nobody is signed in."""
    page = open_page()
    page.goto(spa.base)
    with page.expect_popup() as popup:
        press(page, "Sign in with Twitter")
    with popup.value.expect_event("close"):
        popup.value.get_by_role("button", name="Deny").click()
    expect(page.get_by_role("status")).to_have_text("That did not work: access_denied")
    with page.expect_popup() as popup:
        press(page, "Sign in with Twitter")
    popup.value.get_by_role("button", name="Deny").wait_for()
    popup.value.close()
    expect(page.get_by_role("status")).to_have_text("That did not work: popup_closed")
    assert [item for item in page.context.cookies(spa.base) if item["name"] == "oauthgate"] == []


def isolate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the providers' pages have no opener, as some real ones do."""
    answer = LocalProvider.__call__

    async def isolated(self: LocalProvider, scope: Any, receive: Any, send: Any) -> None:
        async def marked(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"].append((b"cross-origin-opener-policy", b"same-origin"))
            await send(message)

        await answer(self, scope, receive, marked)

    monkeypatch.setattr(LocalProvider, "__call__", isolated)


def test_opener_policy_of_a_provider(
    spa: SPA, open_page: OpenPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A provider's Cross-Origin-Opener-Policy cuts popup and page apart, which hear each other still."""
    isolate(monkeypatch)
    page = open_page()
    # As in the world, where one window at a time has the focus: here every page believes to have it.
    page.add_init_script("document.hasFocus = () => false")
    page.goto(spa.base)
    with page.expect_popup() as popup:
        press(page, "Sign in with Twitter")
    popup.value.get_by_role("button", name="Allow as Ada Lovelace").wait_for()
    assert popup.value.evaluate("window.opener") is None
    popup.value.get_by_role("button", name="Allow as Ada Lovelace").click(no_wait_after=True)
    title(page, "Hello, Ada Lovelace")
    # Looked at, and not waited for as an event: the policy gives the window another page of its own.
    for _ in range(TIMEOUT // 50):
        if popup.value.is_closed():
            break
        page.wait_for_timeout(50)
    assert popup.value.is_closed()


def test_other_tabs_follow(spa: SPA, open_page: OpenPage) -> None:
    """Signing in and out in one tab is seen by the app in another one of the same browser."""
    page = open_page()
    page.goto(spa.base)
    other = page.context.new_page()
    other.goto(spa.base)
    title(other, "What are you listening to?")
    sign_in_by_popup(page)
    title(other, "Hello, Ada Lovelace")
    press(other, "Sign out")
    title(page, "What are you listening to?")


def test_another_user_in_another_tab(spa: SPA, browser: Browser) -> None:
    """Who signed in anew in another tab is gone on with; what a page of theirs asked for is not done for
    somebody else who signed in there."""
    context = browser.new_context()
    context.set_default_timeout(TIMEOUT)
    page, other = context.new_page(), context.new_page()
    page.goto(spa.base)
    sign_in_by_popup(page)
    title(page, "Hello, Ada Lovelace")
    page.evaluate("import('/_oauth/oauthgate.js').then((all) => { window.gate = all.connect(); })")
    page.evaluate("gate.session()")
    for account, status in (("Ada Lovelace", 200), ("Grace Hopper", 403)):
        other.goto(f"{spa.base}/_oauth/twitter/login?next=/")
        other.get_by_role("button", name=f"as {account}").click()
        title(other, f"Hello, {account}")
        assert page.evaluate(POST) == status
    assert spa.twitter.count["tweets"] == 1
    context.close()


def test_demonstration(open_page: OpenPage) -> None:
    """`make demo APP=spa` is the same app, with a provider for each of its buttons."""
    with demonstration("spa") as demo:
        page = open_page()
        page.goto(demo.base)
        sign_in_by_popup(page)
        title(page, "Hello, Ada Lovelace")
        sign_in_by_popup(page, "Link Spotify")
        expect(page.locator("#song")).to_contain_text("♪")


@contextmanager
def other_origin(host: str) -> Iterator[str]:
    """An empty page at another origin than the app's."""

    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/html")])
        return [b"<!doctype html><title>Stranger</title><body>"]

    server = make_server("127.0.0.1", free_port(), app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://{host}:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(params=["localhost", "127.0.0.1"])
def stranger(request: pytest.FixtureRequest) -> Iterator[str]:
    """Of the same site, whose requests carry the cookie, and of another site."""
    with other_origin(request.param) as found:
        yield found


@pytest.mark.parametrize("cut", [False, True])
def test_front_end_of_an_allowed_origin(
    open_page: OpenPage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: bool
) -> None:
    """A front end at a sibling origin uses the module: session, popup, call, sign-out; also where the
    provider's opener policy cuts the popup off, which then nobody of another origin can hear."""
    if cut:
        isolate(monkeypatch)
    with (
        other_origin("localhost") as front,
        running_spa(tmp_path, origins=(front,)) as spa,
    ):
        page = open_page()
        page.add_init_script(RECORDER + "document.hasFocus = () => false;")
        page.goto(front)
        page.evaluate(
            "async (url) => { window.gate = (await import(url)).connect(); }",
            f"{spa.base}/_oauth/oauthgate.js",
        )
        assert page.evaluate("gate.session()") is None
        names = page.evaluate("gate.providers().then(all => all.map(one => one.name))")
        assert names == ["twitter", "spotify"]
        with page.expect_popup() as popup:
            page.evaluate("window.signing = gate.loginPopup('twitter'); undefined")
        allow = popup.value.get_by_role("button", name="Allow as Ada Lovelace")
        if cut:
            allow.click()
        else:
            with popup.value.expect_event("close"):
                allow.click()
        session = page.evaluate("signing")
        assert session["links"][0]["profile"]["name"] == "Ada Lovelace"
        spa.assert_nothing_to_steal(page)
        assert page.evaluate("gate.logout()") is None
        assert page.evaluate("gate.session()") is None


def test_a_stranger_gets_nothing(spa: SPA, stranger: str, browser: Browser) -> None:
    """A page of another origin can neither read, nor change, nor frame, nor listen (rows 26, 67)."""
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(TIMEOUT)
    page.goto(spa.base)
    sign_in_by_popup(page)
    title(page, "Hello, Ada Lovelace")
    session = page.evaluate("fetch('/_oauth/session').then(reply => reply.json())")
    page.goto(stranger)
    found = page.evaluate(ATTACKS, [spa.base, session["csrf_token"]])
    assert found == {
        "session": "TypeError",
        "session with a token": "TypeError",
        "providers": "TypeError",
        "logout by fetch": "TypeError",
        "logout without cors": "TypeError",
        "module": "TypeError",
        "script": "error",
        "frame": "blocked",
        "popup frame": "blocked",
    }
    # A form, which needs no permission to be sent.
    with page.expect_navigation(url=f"{spa.base}/_oauth/logout"):
        page.evaluate(
            """([base, token]) => {
                const form = document.createElement("form");
                form.method = "post"; form.action = base + "/_oauth/logout";
                form.innerHTML = `<input name=csrf_token value="${token}">`;
                document.body.append(form); form.submit();
            }""",
            [spa.base, session["csrf_token"]],
        )
    expect(page.get_by_text("csrf_failed")).to_be_visible()
    page.goto(spa.base)
    title(page, "Hello, Ada Lovelace")
    context.close()


def test_a_stranger_opens_the_popup(spa: SPA, stranger: str, browser: Browser) -> None:
    """A sign-in that a stranger's page opened tells it nothing, not even by closing itself; asked to
    tell the stranger, the gate refuses to begin."""
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(TIMEOUT)
    page.goto(stranger)
    page.evaluate(
        "window.heard = []; addEventListener('message', (event) => heard.push(String(event.data)))"
    )
    attempt = "a" * 32
    for opener, shown in ((stranger, "invalid_request"), (spa.base, "Done"), ("", "Done")):
        with page.expect_popup() as opened:
            page.evaluate(
                "([url, id, opener]) => { window.popup = open(`${url}?popup=${id}` + "
                "(opener && `&opener=${encodeURIComponent(opener)}`)) && undefined }",
                [f"{spa.base}/_oauth/twitter/login", attempt, opener],
            )
        popup = opened.value
        if shown == "Done":
            popup.get_by_role("button", name="as Ada Lovelace").click()
        expect(popup.get_by_text(shown, exact=True)).to_be_visible()
        popup.evaluate("new Promise(done => setTimeout(done, 200))")  # whatever it says is said by now
        assert not popup.is_closed()
        popup.close()
    assert page.evaluate("heard") == []
    context.close()


#: What a page of another origin can try, and what comes of it.
ATTACKS = """async ([base, token]) => {
  const outcome = async (work) => {
    try { const reply = await work(); return reply.type ?? "read"; }
    catch (error) { return error.name; }
  };
  const call = (route, init) => outcome(() => fetch(base + route, { credentials: "include", ...init }));
  const post = { method: "POST", body: `csrf_token=${token}`,
    headers: { "content-type": "application/x-www-form-urlencoded" } };
  const frame = (route) => new Promise((done) => {
    const made = document.createElement("iframe");
    made.src = base + route;
    made.onload = () => {
      // A refused frame shows the browser's own error page, in which there are no frames of the app's.
      try { done(made.contentWindow.location.href); } catch { done("blocked"); }
    };
    document.body.append(made);
  });
  const script = () => new Promise((done) => {
    const made = document.createElement("script");
    made.src = base + "/_oauth/session";
    made.onload = () => done("load"); made.onerror = () => done("error");
    document.body.append(made);
  });
  // In `no-cors` mode the request is made, and even that nothing can be read of it.
  return {
    "session": await call("/_oauth/session"),
    "session with a token": await call("/_oauth/session", { headers: { "x-csrf-token": token } }),
    "providers": await call("/_oauth/providers"),
    "logout by fetch": await call("/_oauth/logout", post),
    "logout without cors": await call("/_oauth/logout", { ...post, mode: "no-cors" }),
    "module": await outcome(() => import(base + "/_oauth/oauthgate.js")),
    "script": await script(),
    "frame": await frame("/_oauth/"),
    "popup frame": await frame(`/_oauth/popup?popup=${"a".repeat(32)}`),
  };
}"""

#: A changing call of the application's.
POST = """gate.fetch("/api/posts", {
  method: "POST", headers: { "content-type": "application/json" }, body: '{"text": "hello"}',
}).then((reply) => reply.status)"""
