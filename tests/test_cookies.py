"""Our reader and writer of cookies (RFC 6265bis): exact names, no silent choice, attributes always."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oauthgate.cookies import delete_cookie, find, find_prefixed, set_cookie

NAME = "__Host-oauthgate"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], None),
        ([""], None),
        ([f"{NAME}=v"], "v"),
        ([f"a=b; {NAME}=v; c=d"], "v"),
        ([f"a=b;{NAME}=v;c=d"], "v"),
        ([f" ;;; {NAME}=v ;"], "v"),
        ([f'{NAME}="v"'], "v"),
        ([f"{NAME}=v=w=="], "v=w=="),
        ([f"{NAME}="], ""),
        (["a=b", f"{NAME}=v", "c=d"], "v"),
        ([f"{NAME}=v", f"{NAME}=v"], "v"),
        ([f"{NAME}=v; {NAME}=v"], "v"),
        ([f'{NAME}=v; {NAME}="v"'], "v"),
    ],
)
def test_the_cookie_is_found(headers: list[str], expected: str | None) -> None:
    """Row 55: in one header field or several, beside others, quoted or not."""
    assert find(headers, NAME) == expected


@pytest.mark.parametrize(
    "headers",
    [
        [f"{NAME}=a; {NAME}=b"],
        [f"{NAME}=a", f"{NAME}=b"],
        [f"{NAME}=a; x=y; {NAME}="],
        [f"{NAME}=a", f"{NAME}=A"],
        [f"{NAME}=a; {NAME}=b; {NAME}=a"],
    ],
)
def test_two_values_are_none(headers: list[str]) -> None:
    """Row 53: a cookie that was tossed beside ours makes the visitor anonymous, in either order."""
    assert find(headers, NAME) is None
    assert find(list(reversed(headers)), NAME) is None
    assert find_prefixed(headers, NAME) == {}


@pytest.mark.parametrize(
    "variant",
    [
        f"={NAME}=evil",
        f"; ={NAME}=evil",
        f"__host-oauthgate=evil; __HOST-oauthgate=evil; {NAME.upper()}=evil",
        f"{NAME}x=evil",
        f"x{NAME}=evil",
        f" {NAME} =evil",
        f"{NAME}",
        f"a={NAME}=evil",
        f'a="; b="{NAME}=evil',
        f"\x00{NAME}=evil",
        f"\u00a0{NAME}=evil",
        f"{NAME}%3Devil",
        f"a=b, {NAME}=evil",
        f"$Version=1, {NAME}=evil",
        "%5F_Host-oauthgate=evil",
    ],
)
def test_variants_of_the_name_are_not_the_name(variant: str) -> None:
    """Row 53: nameless cookies, other cases, look-alikes and values that look like a cookie are ignored,
    alone and beside the real one."""
    assert find([variant], NAME) is None
    assert find([f"{variant}; {NAME}=real"], NAME) == "real"
    assert find([f"{NAME}=real", variant], NAME) == "real"


POISON = [
    'a="unclosed', "a=b; Path=/; Domain=evil", "[]=x", "{=}", '"=;', "a b c", "=", "==", ";=;",
    "a=\x00", "é=ü",
    "a=" + "x" * 8000, "__proto__=1", "a=\\", 'a="\\"', "a=%zz", "$Path=/", "a=b;;;;;c", ",,,",
    "\x7f=\x01",
    "expires=Thu, 01 Jan 1970", "a='", "<script>", "a=b\tc", "a:b=c", "(a)=b", "a/b=c", "a@b=c", "a?=b",
]  # fmt: skip


@pytest.mark.parametrize("poison", POISON)
def test_poison_beside_ours_hides_nothing(poison: str) -> None:
    """Row 54: whatever a sibling domain can set, before or after ours, ours is still read."""
    for headers in ([f"{poison}; {NAME}=v"], [f"{NAME}=v; {poison}"], [poison, f"{NAME}=v"]):
        assert find(headers, NAME) == "v", headers


@given(
    st.lists(st.text(st.characters(exclude_characters=";", codec="latin-1"), max_size=30), max_size=6)
)
@settings(max_examples=1500, deadline=None, derandomize=True)
def test_any_neighbours_hide_nothing(neighbours: list[str]) -> None:
    """Row 54: any bytes beside ours, unless they are ours."""
    neighbours = [text for text in neighbours if NAME not in text]
    assert find(["; ".join([*neighbours, f"{NAME}=v", *neighbours])], NAME) == "v"
    assert find(neighbours, NAME) is None


def test_prefixed_cookies() -> None:
    """The flow cookies of a browser: exact prefix, ambiguous ones left out, a bound on their number."""
    headers = ["p-a=1; p-b=2; x=3; P-c=4; p-a=1", "p-d=5; p-d=6; =p-e=7; p-", "p-=8"]
    assert find_prefixed(headers, "p-") == {"p-a": "1", "p-b": "2", "p-": "8"}
    many = ["; ".join(f"p-{number}=v" for number in range(10_000))]
    assert len(find_prefixed(many, "p-")) == 50


@pytest.mark.parametrize("secure", [True, False])
@pytest.mark.parametrize("same_site", ["Lax", "Strict", "None"])
@pytest.mark.parametrize("max_age", [None, 0, 600])
def test_attributes(secure: bool, same_site: str, max_age: int | None) -> None:
    """Row 52: always HttpOnly and Path=/, never Domain, Secure wherever the site is https."""
    written = set_cookie("n", "v", secure=secure, max_age=max_age, same_site=same_site)
    first, *attributes = written.split("; ")
    assert first == "n=v"
    expected = {"Path=/", "HttpOnly", f"SameSite={same_site}"}
    expected |= {"Secure"} if secure else set()
    expected |= set() if max_age is None else {f"Max-Age={max_age}"}
    assert set(attributes) == expected and len(attributes) == len(expected)


def test_deleting_writes_the_same_cookie() -> None:
    """Row 52: what deletes a cookie has its name, path and flags, or browsers keep the cookie."""
    assert delete_cookie(NAME, secure=True) == set_cookie(NAME, "", secure=True, max_age=0)
    assert "Secure" in delete_cookie(NAME, secure=True) and "Max-Age=0" in delete_cookie(
        NAME, secure=True
    )
