"""`allow` and `deny`: which accounts they mean, and which they do not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import oauthgate
from oauthgate.config import Config
from oauthgate.errors import ConfigError, GateError
from oauthgate.records import Link
from oauthgate.testing import Account, LocalProvider
from tests.support import PAGE, SiteUnderTest, make_config

from .links import link

MakeSite = Callable[[], SiteUnderTest]
KELVIN = "\u212a"


def admitted(account: Link, *, allow: Any = (), deny: Any = ()) -> bool:
    """Whether an account may sign in by these entries."""
    tables = {name: {"client_id": "x", "client_secret": "y"} for name in ("github", "google", "spotify")}
    access = {"allow": list(allow), "deny": list(deny)}
    rules = Config.load({"access": access, "providers": tables}).access.rules
    try:
        rules.admit(account)
    except GateError as error:
        assert (error.code, error.status) == ("not_allowed", 403)
        return False
    return True


def by_email(address: str | None, *, verified: bool = True, **rules: Any) -> bool:
    return admitted(link("google", "1", email=address, verified=verified), **rules)


@pytest.mark.parametrize(
    "address", ["ada@example.com", "ADA@EXAMPLE.COM", "a.b+c@Example.Com", "ü@example.com"]
)
def test_a_domain_lets_in(address: str) -> None:
    """`*@example.com` means every verified address of exactly that domain, in any case."""
    assert by_email(address, allow=["*@example.com"])
    assert by_email(address, allow=["*@EXAMPLE.com"])


@pytest.mark.parametrize(
    "address",
    [
        None, "", "ada", "@example.com", "ada@", "ada@sub.example.com", "ada@example.com.evil.org",
        "evil@example.com@evil.org", "evil@evil.org@example.com", '"evil@evil.org"@example.com',
        "ada@evilexample.com", "ada@example.com.", "ada@ example.com", "ada @example.com",
        "<ada@example.com>", "ada,x@example.com", "ada@example.com\x00", "ada@example.com\n",
        "a..b@example.com", ".a@example.com", "ada@examp\u200ble.com", f"ada@e{'x' * 250}.example.com",
        "ada@ｅｘａｍｐｌｅ.com", "ada(comment)@example.com", "x" * 300 + "@example.com",
    ],
)  # fmt: skip
def test_a_domain_lets_nobody_else_in(address: str | None) -> None:
    """Other domains, sub domains, and whatever two programs could read in two ways."""
    assert not by_email(address, allow=["*@example.com"])


def test_unverified_lets_nobody_in() -> None:
    """An address that the provider did not verify is no reason to let anybody in."""
    for rule in ("*@example.com", "ada@example.com"):
        assert not by_email("ada@example.com", verified=False, allow=[rule])
        assert by_email("ada@example.com", allow=[rule])


def test_one_address() -> None:
    """An address means that address; its ASCII letters have no case, other letters are what they are."""
    assert by_email("Ada@Example.com", allow=["ada@example.com"])
    assert by_email("ada@example.com", allow=["ADA@example.com"])
    for other in ("ada+x@example.com", "ad@example.com", "ada@sub.example.com", f"{KELVIN}@example.com"):
        assert not by_email(other, allow=["ada@example.com", "k@example.com"])
    assert by_email("jürgen@example.com", allow=["jürgen@example.com"])
    assert not by_email("ju\u0308rgen@example.com", allow=["jürgen@example.com"])


@pytest.mark.parametrize(
    "address",
    [
        "ada@evil.org", "ADA@EVIL.ORG", "ada@evil.org.", "ada@ｅｖｉｌ.org", "ada@ evil.org ",
        '"ada"@evil.org', "x@ada@evil.org", "ada@evil.org@x.example",
    ],
)  # fmt: skip
@pytest.mark.parametrize("verified", [True, False])
def test_a_domain_keeps_out(address: str, verified: bool) -> None:
    """`deny` means an address however it is spelt, verified or not."""
    expected = address == "ada@evil.org@x.example"
    assert by_email(address, verified=verified, deny=["*@evil.org"]) is expected
    assert by_email("ada@evil.org.example", deny=["*@evil.org"])
    assert by_email("ada@sub.evil.org", deny=["*@evil.org"])
    assert by_email(None, deny=["*@evil.org"])


@pytest.mark.parametrize(
    ("rule", "address"),
    [
        ("*@xn--bcher-kva.example", "a@bücher.example"),
        ("*@xn--bcher-kva.example", "a@BÜCHER.example"),
        ("*@xn--bcher-kva.example", "a@XN--BCHER-KVA.example"),
        ("*@xn--strae-oqa.example", "a@straße.example"),
        ("*@strasse.example", "a@straße.example"),
    ],
)
def test_domains_of_other_scripts(rule: str, address: str) -> None:
    """They are spelt in ASCII in a rule. A `deny` knows both ways in which a name is turned into that;
    an `allow` knows the ASCII form alone, because the two ways can lead to two people's domains."""
    assert not by_email(address, deny=[rule])
    assert by_email(address, allow=[rule]) is address.isascii()


def test_accounts() -> None:
    """`provider:account_id` means exactly that account; a provider alone means every account there."""
    ada, other = link("github", "583231"), link("spotify", "583231")
    assert admitted(ada, allow=["github:583231"])
    assert not admitted(other, allow=["github:583231"])
    assert not admitted(link("github", "5832310"), allow=["github:583231"])
    assert not admitted(link("github", "Ada"), allow=["github:ada"])
    assert admitted(link("github", "a:b@c"), allow=["github:a:b@c"])
    assert admitted(other, allow=[{"provider": "spotify"}])
    assert not admitted(ada, allow=[{"provider": "spotify"}])
    assert not admitted(other, deny=[{"provider": "spotify"}])
    assert not admitted(ada, deny=["github:583231"])


def test_claims() -> None:
    """A claim lets in when it is known to hold, and keeps out unless it is known not to."""
    rule = {"provider": "google", "claim": "groups", "value": "staff"}
    for held, lets_in, passes in (
        ({"groups=staff": True}, True, False),
        ({"groups=staff": False}, False, True),
        ({}, False, False),
    ):
        account = link("google", "1", claims=held)
        assert admitted(account, allow=[rule]) is lets_in
        assert admitted(account, deny=[rule]) is passes
    assert not admitted(link("github", "1", claims={"groups=staff": True}), allow=[rule])
    assert admitted(link("github", "1"), deny=[rule])


def test_all_of_a_table_must_hold() -> None:
    """What one entry says is joined by and; entries are joined by or; `deny` wins."""
    rule = {"provider": "google", "email": "*@example.com"}
    assert by_email("ada@example.com", allow=[rule])
    assert not admitted(link("github", "1", email="ada@example.com", verified=True), allow=[rule])
    assert by_email("ada@example.com", allow=["github:1", rule])
    assert not by_email("ada@example.com", allow=[rule], deny=["ada@example.com"])
    assert by_email("grace@example.com", allow=[rule], deny=["ada@example.com"])


# -- a real sign-in


def refused(site: SiteUnderTest, account: str, provider: str = "corp") -> bool:
    """Whether an account may not sign in; then nothing of it is stored, and a page says so."""
    browser = site.browser()
    answer = site.login(browser, provider, account)
    if answer.status_code == 303:
        return False
    assert answer.status_code == 403
    assert answer.json()["error"] == "not_allowed"
    assert browser.get("/who").json()["user_id"] is None
    return True


def stored(config: dict[str, Any]) -> list[str]:
    """Every account that the store has a link of."""
    with oauthgate.open(config) as gate:
        return sorted(
            f"{each.provider}:{each.account_id}" for user in gate.users() for each in user.links
        )


def test_sign_in_by_verified_address(
    make_site: MakeSite, config: dict[str, Any], provider: LocalProvider
) -> None:
    """Only a verified address of the domain gets in, over both adapters, and only with a provider that
    verifies; nothing is stored of who does not."""
    provider.accounts["1002"] = replace(provider.accounts["1002"], email_verified=False)
    provider.accounts["1003"] = Account(id="1003", username="eve", email="eve@example.com.evil.org")
    config["access"] = {"allow": ["*@example.com"]}
    site = make_site()
    assert refused(site, "grace") and refused(site, "eve")
    assert refused(site, "ada", "spotify")  # its table maps no email_verified
    assert stored(config) == []
    assert not refused(site, "ada")
    assert stored(config) == ["corp:1001"]
    browser = site.browser()
    started = browser.get("/_oauth/corp/login").headers["location"]
    page = browser.get(site.authorize(started, "eve"), headers=PAGE)
    assert page.status_code == 403 and "not admitted" in page.text and "eve" not in page.text


def test_sign_in_by_claims(make_site: MakeSite, config: dict[str, Any], provider: LocalProvider) -> None:
    """Claims of the ID token and of the profile, one value or a list, names with dots in them too."""
    role = "https://example.com/roles"
    provider.claims_in_id_token = True
    provider.accounts["1001"] = replace(
        provider.accounts["1001"], extra={"groups": ["x", "staff"], role: "boss", "level": 3}
    )
    config["access"] = {
        "allow": [
            {"provider": "corp", "claim": "groups", "value": ["admins", "staff"]},
            {"provider": "spotify", "claim": role, "value": "boss"},
            {"provider": "twitter", "claim": "level", "value": 3},
        ]
    }
    site = make_site()
    for name in ("corp", "spotify", "twitter"):
        assert refused(site, "grace", name)
        assert not refused(site, "ada", name)
    config["access"]["deny"] = [{"claim": "groups", "value": "staff"}]
    again = make_site()
    assert refused(again, "ada")


def test_linking_is_not_signing_in(make_site: MakeSite, config: dict[str, Any]) -> None:
    """Who is in may link an account that could not sign in."""
    config["access"] = {"allow": ["corp:1001"]}
    site = make_site()
    browser = site.browser()
    assert site.login(browser, "corp").status_code == 303
    assert site.link(browser, "spotify").status_code == 303
    assert browser.get("/who").json()["services"] == ["corp", "spotify"]
    assert refused(site, "ada", "spotify")


def test_a_rule_that_is_changed_later(make_site: MakeSite, config: dict[str, Any]) -> None:
    """The next start of the site ends the sessions of who is not admitted any more, and asks anew
    about claims that nobody had asked about; the cookie is left alone, so taking the rule back gives
    the session back."""
    first = make_site()
    browsers = {name: first.browser() for name in ("ada", "grace")}
    for name, browser in browsers.items():
        first.login(browser, "corp", name)
    cookies = {
        name: {"cookie": f"oauthgate={each.cookies['oauthgate']}"} for name, each in browsers.items()
    }

    def signed_in(**access: Any) -> set[str]:
        config["access"] = access
        site = make_site()
        return {
            name
            for name, headers in cookies.items()
            if site.browser().get("/who", headers=headers).json()["user_id"] is not None
        }

    assert signed_in(deny=["corp:1002"]) == {"ada"}
    assert signed_in(deny=["grace@example.com"]) == {"ada"}
    assert signed_in(allow=["*@example.com"]) == {"ada", "grace"}
    assert signed_in(deny=[{"claim": "groups", "value": "x"}]) == set()
    assert signed_in() == {"ada", "grace"}


def test_signing_out_of_what_is_not_admitted(make_site: MakeSite, config: dict[str, Any]) -> None:
    """A session that a rule keeps out can be ended, and does not come back with the old rule."""
    browser = make_site().browser()
    make_site().login(browser, "corp")
    cookie = {"cookie": f"oauthgate={browser.cookies['oauthgate']}"}
    config["access"] = {"deny": ["corp:1001"]}
    site = make_site()
    answer = site.browser().post("/_oauth/logout", headers={**cookie, **site.origin()})
    assert answer.status_code == 200
    del config["access"]
    assert make_site().browser().get("/who", headers=cookie).json()["user_id"] is None


def test_a_session_goes_with_its_account(make_site: MakeSite, config: dict[str, Any]) -> None:
    """Unlinking the account that was let in ends what it let in, where there are rules."""
    config["access"] = {"allow": ["corp:1001"]}
    site = make_site()
    browser = site.browser()
    site.login(browser, "corp")
    site.link(browser, "spotify")
    site.post(browser, "/corp/unlink")
    assert browser.get("/who").json()["user_id"] is None


def test_a_cut_address_is_not_verified(tmp_path: Path) -> None:
    """An address of which something had to be cut or cleaned away is not the one that was verified."""
    from oauthgate.protocols.paths import Documents, normalize

    provider = Config.load(make_config("http://127.0.0.1:9", tmp_path)).providers["corp"]
    for address in (
        "a" * 488 + "@example.com.evil.org",
        "a@example.com" + "\u200b" * 487 + ".evil.org",
        "a@example.com ",
    ):
        document = {"email": address, "email_verified": True}
        profile = normalize(provider, Documents(document), "1")
        assert profile.email is not None and profile.email.endswith("@example.com")
        assert not profile.email_verified


# -- what is refused at start

REFUSED = [
    ({"max_user": 1}, 'max_user: unknown key; did you mean "max_users"?'),
    ({"max_users": "25"}, "max_users: expected `int | null`, got `str`, found '25'"),
    ({"max_users": -1}, "max_users: found -1, expected 0 to 10000"),
    ({"max_users": 10_001}, "max_users: found 10001, expected 0 to 10000"),
    ({"allow": "ada@example.com"}, "allow: expected `array`"),
    ({"allow": ["example.com"]}, 'allow[0]: found \'example.com\'; did you mean "*@example.com"?'),
    ({"allow": ["*@*.example.com"]}, "allow[0]: found '*@*.example.com', expected"),
    ({"allow": ["*"]}, "allow[0]: found '*', expected"),
    ({"allow": ["a*@example.com"]}, "allow[0]: found 'a*@example.com', expected"),
    ({"allow": ["a@b@example.com"]}, "allow[0]: found 'a@b@example.com', expected"),
    ({"allow": ["*@bücher.example"]}, "expected the domain in its ASCII form (xn--…)"),
    ({"deny": ["githup:1"]}, 'deny[0]: no provider \'githup\'; did you mean "github"?'),
    ({"allow": ["github:"]}, "allow[0]: found 'github:', expected an account's id"),
    ({"allow": [{}]}, "allow[0]: expected provider, email, or claim and value"),
    ({"allow": [{"provder": "github"}]}, 'allow[0] provder: unknown key; did you mean "provider"?'),
    ({"allow": [{"account": "1"}]}, "allow[0] account: expected the provider"),
    ({"allow": [{"claim": "groups"}]}, "allow[0]: claim and value belong together"),
    ({"allow": [{"value": "x"}]}, "allow[0]: claim and value belong together"),
    ({"allow": [{"claim": "groups", "value": []}]}, "allow[0]: expected provider, email, or claim"),
    ({"allow": [{"claim": "callback.name", "value": "x"}]}, "is not signed, so it can admit nobody"),
    ({"protect": ["admin/*"]}, "protect[0]: found 'admin/*'; did you mean \"/admin/*\"?"),
    ({"protect": ["/admin*"]}, "protect[0]: found '/admin*', expected a path as people read it"),
    ({"protect": ["/%61dmin"]}, "expected a path as people read it"),
    ({"protect": ["/a/../b"]}, "expected a path as people read it"),
    ({"protect": ["/a//b"]}, "expected a path as people read it"),
    ({"protect": ["/_oauth/session"]}, "/_oauth is the gate's own and protects itself"),
    ({"protect": [{"pth": "/x"}]}, 'protect[0] pth: unknown key; did you mean "path"?'),
    ({"protect": [{"provider": "github"}]}, "protect[0] path: missing"),
    ({"protect": [{"path": "/x", "scope": ["a"]}]}, "protect[0] scope: expected the provider"),
    ({"protect": [{"path": "/x", "provider": "gogle"}]}, "protect[0]: no provider 'gogle'"),
    ({"original_uri_header": "X Y", "protect": ["/x"]}, "original_uri_header: found 'X Y'"),
    ({"original_uri_header": "X-Y"}, "original_uri_header: without protect there is nothing to look up"),
]  # fmt: skip


@pytest.mark.parametrize(("access", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_refused(access: dict[str, Any], message: str) -> None:
    """Whatever cannot be meant is refused when the configuration is read, with what may be meant."""
    providers = {"github": {"client_id": "x", "client_secret": "y"}}
    with pytest.raises(ConfigError) as refusal:
        Config.load({"access": access, "providers": providers})
    assert str(refusal.value).startswith("configuration: [access]")
    assert message in str(refusal.value)
