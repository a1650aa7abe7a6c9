"""Redis behind TLS, behind Sentinel, and as a cluster: real ones, started here."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from oauthgate.errors import StoreError
from oauthgate.stores import ABSENT, make_store
from oauthgate.stores.redis import RedisStore
from oauthgate.testing import StoreContract
from tests.servers.redis import (
    SERVICE,
    RedisServer,
    redis_cluster,
    redis_sentinel,
    redis_server,
    until,
)

from .redis_places import SHORT, SIDES, own, started, use

# -- TLS


class Papers(NamedTuple):
    """Files of a certificate authority, and of a certificate of its for 127.0.0.1."""

    ca: Path
    cert: Path
    key: Path


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    folder = tmp_path_factory.mktemp("papers")
    found = Papers(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ca_name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Test authority")])
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "redis")])
    now = datetime.datetime.now(datetime.UTC)

    def certificate(subject: x509.Name, public: ec.EllipticCurvePublicKey, ca: bool) -> bytes:
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(ca_name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
                critical=False,
            )
        )
        return builder.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    found.ca.write_bytes(certificate(ca_name, ca_key.public_key(), True))
    found.cert.write_bytes(certificate(name, key.public_key(), False))
    found.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return found


@pytest.fixture(scope="module")
def tls(papers: Papers) -> Iterator[int]:
    """The port of a server that speaks TLS only, and asks for a client's certificate."""
    options = {
        "tls-cert-file": str(papers.cert),
        "tls-key-file": str(papers.key),
        "tls-ca-cert-file": str(papers.ca),
    }
    with started(redis_server(options)) as server:
        plain = server.port
        server.ask("CONFIG", "SET", "port", 0)
        server.ask("CONFIG", "SET", "tls-port", plain)
        yield plain


@SIDES
def test_tls(papers: Papers, tls: int, blocking: bool) -> None:
    """With the authority named, and a certificate of ours, records are written and read."""
    url = own(f"rediss://127.0.0.1:{tls}?ca={papers.ca}&cert={papers.cert}&key={papers.key}")
    use(url, blocking, _everything)


def test_changes_are_told_over_tls(papers: Papers, tls: int) -> None:
    """The connection on which the server tells of changes is one like the others."""
    url = own(f"rediss://127.0.0.1:{tls}?ca={papers.ca}&cert={papers.cert}&key={papers.key}")

    async def scenario(store: RedisStore) -> None:
        store.watch(30.0)
        while (before := store.stamp("user/a")) is None:
            await asyncio.sleep(0.01)
        await store.put("user/a", b"v")
        while store.stamp("user/a") is before:
            await asyncio.sleep(0.01)

    use(url, False, lambda store: asyncio.wait_for(scenario(store), 20))


@SIDES
@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("rediss://127.0.0.1:{port}", "a certificate that is not trusted here"),
        # Issued by the right authority, and for another name.
        ("rediss://localhost:{port}?ca={ca}", "a certificate that is not trusted here"),
        ("rediss://127.0.0.1:{port}?ca={ca}", "wants a client's certificate|broke off"),
        ("redis://127.0.0.1:{port}", "Redis at redis://127.0.0.1"),
    ],
)
def test_tls_is_checked(papers: Papers, tls: int, blocking: bool, url: str, expected: str) -> None:
    """An unknown authority, another host's certificate, no certificate of ours, no TLS: all refused."""

    async def scenario(store: RedisStore) -> None:
        for work in (store.open(), store.get("k"), store.put("k", b"v")):
            with pytest.raises(StoreError, match=expected):
                await work

    use(url.format(port=tls, ca=papers.ca), blocking, scenario)


# -- Sentinel


@pytest.fixture(scope="module")
def watched() -> Iterator[tuple[RedisServer, RedisServer, RedisServer]]:
    """A primary, its replica and their sentinel."""
    with started(redis_sentinel()) as found:
        yield found


@SIDES
def test_the_primary_is_found(watched: tuple[RedisServer, ...], blocking: bool) -> None:
    """A sentinel that is gone is passed over; the record is on the primary that the other names."""
    primary, _, sentinel = watched
    url = own(f"redis+sentinel://127.0.0.1:1,127.0.0.1:{sentinel.port}/{SERVICE}?db=3")
    use(url, blocking, _everything)
    assert primary.ask("INFO", "keyspace")["db3"]["keys"] >= 1


@SIDES
def test_a_primary_that_no_sentinel_knows(watched: tuple[RedisServer, ...], blocking: bool) -> None:
    """A wrong name, or no sentinel at all, is an error that says what to check."""

    async def scenario(store: RedisStore) -> None:
        for work in (store.open(), store.get("k"), store.put("k", b"v")):
            with pytest.raises(StoreError, match="check the sentinels"):
                await work

    for place in (f"127.0.0.1:{watched[2].port}/other", f"127.0.0.1:1/{SERVICE}"):
        use(f"redis+sentinel://{place}", blocking, scenario)


@SIDES
@pytest.mark.parametrize("how", ["killed", "demoted"])
def test_a_failover(watched: tuple[RedisServer, ...], blocking: bool, how: str) -> None:
    """When the replica has become the primary, a store that was in use finds it by itself; what the
    replica had received is there, under its version."""
    *servers, sentinel = watched
    url = own(f"redis+sentinel://127.0.0.1:{sentinel.port}/{SERVICE}")
    key = f"{url.partition('=')[2]}k"
    named = _primary(sentinel)
    old, new = servers if named == servers[0].port else reversed(servers)

    async def scenario(store: RedisStore) -> None:
        version = await store.put("k", b"v")
        until(lambda: _holds(new, key), "the record on the replica")
        if how == "killed":
            old.stop()
        until(lambda: bool(sentinel.ask("SENTINEL", "FAILOVER", SERVICE)), "the failover")
        until(lambda: _primary(sentinel) == new.port, "another primary")
        until(lambda: new.ask("ROLE")[0] == b"master", "its promotion")
        if how == "demoted":
            old.ask("REPLICAOF", "127.0.0.1", new.port)
        # The connections of the store still lead to the old one.
        newer = await store.put("k", b"w", expect=version)
        assert await store.get("k") == (b"w", newer, None)
        await store.put("k", b"x")
        assert new.ask("GET", key).endswith(b"\nx")

    use(url, blocking, scenario)
    if how == "killed":
        old.start()
        old.ask("REPLICAOF", "127.0.0.1", new.port)


def _primary(sentinel: RedisServer) -> int:
    return int(sentinel.ask("SENTINEL MASTERS")[SERVICE]["port"])


# -- cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[list[RedisServer]]:
    """Three primaries that share the slots."""
    with started(redis_cluster()) as found:
        yield found


def _hosts(servers: list[RedisServer]) -> str:
    return ",".join(f"127.0.0.1:{server.port}" for server in servers)


class TestCluster(StoreContract):
    """Three primaries; the first host of the URL is not there."""

    @pytest.fixture(autouse=True)
    def _place(self, cluster: list[RedisServer]) -> None:
        self.url = own(f"redis+cluster://127.0.0.1:1,{_hosts(cluster)}")

    def make_store(self, blocking: bool) -> Any:
        return make_store(self.url, blocking=blocking)


@SIDES
def test_records_are_spread(cluster: list[RedisServer], blocking: bool) -> None:
    """Every primary holds a part, and a scan sees them all."""
    url = own(f"redis+cluster://{_hosts(cluster[:1])}")
    before = [server.ask("DBSIZE") for server in cluster]

    async def scenario(store: RedisStore) -> None:
        await store.open()
        for number in range(60):
            await store.put(f"user/{number}", b"v")
        found = {key async for key, _ in store.scan("user/")}
        assert found == {f"user/{number}" for number in range(60)}

    use(url, blocking, scenario)
    assert all(server.ask("DBSIZE") > size for server, size in zip(cluster, before, strict=True))


@SIDES
def test_a_slot_that_moved(cluster: list[RedisServer], blocking: bool) -> None:
    """When a slot moves to another primary, reads and writes follow it."""
    url = own(f"redis+cluster://{_hosts(cluster)}")
    prefix = url.partition("=")[2]
    slot = cluster[0].ask("CLUSTER KEYSLOT", f"{prefix}k")
    names = {server.ask("CLUSTER MYID").decode(): server for server in cluster}

    async def scenario(store: RedisStore) -> None:
        version = await store.put("k", b"v")
        (old,) = (name for name, server in names.items() if _holds(server, f"{prefix}k"))
        new = next(name for name in names if name != old)
        names[new].ask("CLUSTER", "SETSLOT", slot, "IMPORTING", old)
        names[old].ask("CLUSTER", "SETSLOT", slot, "MIGRATING", new)
        names[old].ask("MIGRATE", "127.0.0.1", names[new].port, f"{prefix}k", 0, 1000)
        # The record has moved, its slot has not yet (ASK); then that too (MOVED).
        assert await store.get("k") == (b"v", version, None)
        version = await store.put("k", b"w", expect=version)
        for server in (names[new], names[old]):
            server.ask("CLUSTER", "SETSLOT", slot, "NODE", new)
        assert await store.get("k") == (b"w", version, None)
        version = await store.put("k", b"x", expect=version)
        assert await store.delete("k", expect=version)

    use(url, blocking, scenario)


def _holds(server: RedisServer, key: str) -> bool:
    try:
        return bool(server.ask("EXISTS", key))
    except Exception:  # MOVED: another one does
        return False


@SIDES
def test_a_part_that_nobody_serves(cluster: list[RedisServer], blocking: bool) -> None:
    """While a primary hangs, its part is an error and never "nothing there"; then it works again."""
    url = own(f"redis+cluster://{_hosts(cluster)}?timeout={SHORT}&connect_timeout={SHORT}")

    async def scenario(store: RedisStore) -> None:
        for number in range(30):
            await store.put(f"k{number}", b"v")
        cluster[2].freeze()
        failed = 0
        try:
            for number in range(30):
                try:
                    assert await store.get(f"k{number}") is not None
                except StoreError:
                    failed += 1
                    if failed == 2:
                        break
        finally:
            cluster[2].thaw()
        assert failed
        for server in cluster:
            until(lambda: server.ask("CLUSTER INFO")["cluster_state"] == "ok", "the cluster")  # noqa: B023 - used at once
        for number in range(30):
            assert await store.get(f"k{number}") is not None

    use(url, blocking, scenario)


def test_one_of_a_cluster_is_no_store_by_itself(cluster: list[RedisServer]) -> None:
    """A plain URL for a server of a cluster is told apart, and the right scheme named."""

    async def scenario(store: RedisStore) -> None:
        for number in range(20):
            await store.put(f"k{number}", b"v")

    with pytest.raises(StoreError, match=r"write the URL with redis\+cluster"):
        use(own(f"redis://{_hosts(cluster[:1])}"), True, scenario)


async def _everything(store: RedisStore) -> None:
    """One of each."""
    await store.open()
    version = await store.put("user/a", b"\x00v\n", expect=ABSENT)
    assert await store.get("user/a") == (b"\x00v\n", version, None)
    assert [key async for key, _ in store.scan("user/")] == ["user/a"]
    version = await store.put("user/a", b"w", expires_at=time.time() + 60, expect=version)
    assert await store.delete("user/a", expect=version)
    await store.put("user/a", b"stays")
