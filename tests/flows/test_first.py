"""The main job: sign in, link a second service, call both from a handler."""

from __future__ import annotations

from tests.support import SiteUnderTest


def test_sign_in_link_and_call(site: SiteUnderTest) -> None:
    """A visitor signs in with one provider, links the others, and a handler calls all three APIs."""
    browser = site.browser()
    answer = site.login(browser, "twitter")
    assert (answer.status_code, answer.headers["location"]) == (303, f"{site.base}/who")
    for name in ("spotify", "corp"):
        assert site.link(browser, name).status_code == 303
    who = browser.get("/who").json()
    assert who["services"] == ["corp", "spotify", "twitter"]
    assert who["profile"]["username"] == "ada"
    for name in ("twitter", "spotify", "corp"):
        assert browser.get(f"/call/{name}/me").json()["id"] == "1001"
        assert browser.get(f"/sync/{name}/me").json()["id"] == "1001"
