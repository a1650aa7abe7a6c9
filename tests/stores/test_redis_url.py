"""Redis URLs: what they may say, and that no refusal repeats a part of them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from oauthgate.errors import ConfigError
from oauthgate.stores import known_schemes, make_store
from oauthgate.stores.redis import RedisStore
from oauthgate.stores.redis_url import KINDS, read_url

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://cache", {"hosts": (("cache", 6379),), "db": 0, "tls": False}),
        ("redis://cache:1234/5", {"hosts": (("cache", 1234),), "db": 5}),
        ("redis://:p%40ss%2F@[::1]:7000/", {"hosts": (("::1", 7000),), "password": "p@ss/"}),
        ("redis://u%3A:p@h", {"username": "u:", "password": "p"}),
        ("rediss://u@h?timeout=0.5&connect_timeout=2", {"tls": True, "timeout": 0.5, "username": "u"}),
        ("redis://h?prefix=shop:&connections=7", {"prefix": "shop:", "connections": 7}),
        ("unix:///run/redis.sock?db=2", {"path": "/run/redis.sock", "db": 2}),
        ("unix://u:p@/run/a%20b.sock", {"path": "/run/a b.sock", "password": "p"}),
        (
            "redis+sentinel://:p@a,b:27000/gate?db=1&sentinel_password=q",
            {
                "hosts": (("a", 26379), ("b", 27000)),
                "service": "gate",
                "db": 1,
                "password": "p",
                "sentinel_password": "q",
            },
        ),
        ("redis+cluster://a:7000,b:7001", {"hosts": (("a", 7000), ("b", 7001)), "kind": "cluster"}),
        ("rediss+cluster://a/0", {"hosts": (("a", 6379),), "tls": True}),
    ],
)
def test_what_a_url_says(url: str, expected: dict[str, Any]) -> None:
    """Hosts, credentials, database and options arrive as they were written, percent-decoded."""
    place = read_url(url)
    assert {name: getattr(place, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://", "a host is missing, expected redis://"),
        ("rediss://h,g", "found several hosts"),
        ("redis://h:0", "a port is not a number"),
        ("redis://h:65536", "a port is not a number"),
        ("redis://[::1", "cannot be read"),
        ("redis://[::1]x:1", "a host is missing"),
        ("redis://h/one", "the database is not a number"),
        ("redis://h/0/1", "the database is not a number"),
        ("redis+cluster://h/1", "no numbered databases"),
        ("redis+cluster://h?db=1", "expected one of: prefix, timeout, connect_timeout, connections"),
        ("redis+sentinel://h", "the name under which the sentinels know the primary"),
        ("redis+sentinel://h/a/b", "the name under which the sentinels know the primary"),
        ("unix://run/redis.sock", "three slashes"),
        ("unix://", "three slashes"),
        ("redis://h?timeout=0", "the option timeout is not seconds between"),
        ("redis://h?timeout=nan", "the option timeout is not seconds between"),
        ("redis://h?connections=many", "the option connections is not a number between"),
        ("redis://h?prefix=a&prefix=b", "the option prefix is there twice"),
        ("redis://h?ca=/tmp/ca.pem", "needs TLS"),
        ("rediss://h?ca=ca.pem", "the option ca is not the absolute path"),
        ("rediss://h?ca=/nowhere/ca.pem", "the option ca is not the absolute path"),
        ("rediss://h?ssl_cert_reqs=none", "option 1 after the '?' is not known, expected one of"),
        ("rediss://h?timeout=1&ssl_check_hostname=false", "option 2 after the '?' is not known"),
        ("redis://h?retry_on_timeout=true", "is not known"),
    ],
)
def test_what_is_refused(url: str, expected: str) -> None:
    """What cannot work, and what would weaken the connection, is refused at start, with what may be."""
    with pytest.raises(ConfigError) as refused:
        make_store(url, blocking=True)
    assert expected in str(refused.value)
    assert str(refused.value).startswith("[oauthgate] store: ")


def test_a_certificate_needs_its_key(tmp_path: Path) -> None:
    """A client's certificate without its key is refused."""
    file = tmp_path / "cert.pem"
    file.touch()
    with pytest.raises(ConfigError, match="cert and key belong together"):
        read_url(f"rediss://h?cert={file}")
    assert read_url(f"rediss://h?cert={file}&key={file}").cert == str(file)


@pytest.mark.parametrize(
    "url",
    [
        f"redis://:a/{SECRET}@h",
        f"redis://:a?{SECRET}@h",
        f"redis://:a?{SECRET}=1@h",
        f"redis://:a#{SECRET}@h",
        f"redis://:{SECRET}[@h",
        f"redis://:{SECRET}@h:x",
        f"redis://u:{SECRET}:@h/x",
        f"redis://{SECRET}:x:y",
        f"unix://u:{SECRET}@host/run/s",
        f"redis+sentinel://h?sentinel_password={SECRET}",
    ],
)
def test_no_refusal_shows_a_password(url: str) -> None:
    """A password that was not percent-encoded can stand anywhere in a URL, so nothing is repeated."""
    with pytest.raises(ConfigError) as refused:
        read_url(url)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        f"redis://u:{SECRET}@h/3?prefix=x",
        f"unix://u:{SECRET}@/run/s",
        f"redis+sentinel://u:{SECRET}@h/gate?sentinel_password={SECRET}",
        f"redis+cluster://u:{SECRET}@h,g:1",
    ],
)
def test_no_repr_shows_a_password(url: str) -> None:
    """Neither the store nor its parts show credentials; the address is there."""
    store = RedisStore(url, blocking=True)
    for shown in (repr(store), repr(store.place), str(store.place), repr(vars(store))):
        assert SECRET not in shown
    assert repr(RedisStore("redis://u:p@h/3?prefix=x")) == "RedisStore('redis://h:6379/3')"


def test_every_scheme_is_known() -> None:
    """Each scheme that can be read can be configured."""
    assert set(KINDS) <= set(known_schemes())


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where redis-py is not installed, the refusal says what to install."""
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ConfigError, match=r'pip install "oauthgate\[redis\]"'):
        make_store("redis://h", blocking=True)
