"""The service that is called: a bare HTTP/1.1 server in a process of its own, over http and https.

It answers everything at once with a small JSON document, and `…/echo` with the body that it was sent.
It is as little of a server as will do, so that what is measured is the client. `python -m
bench.api_server CERTIFICATE KEY` prints its two ports.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from .processes import ROOT

BODY = b'{"id": "1001", "name": "Ada Lovelace", "is_playing": true, "item": {"name": "Nocturne"}}'
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
ANSWER = HEAD % len(BODY) + BODY


class _Exchange(asyncio.Protocol):
    """One connection: whole requests in, answers out."""

    def __init__(self) -> None:
        self._read = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._read += data
        while (end := self._read.find(b"\r\n\r\n")) >= 0:
            head = self._read[:end].lower()
            length = 0
            at = head.find(b"\r\ncontent-length:")
            if at >= 0:
                length = int(head[at + 17 :].split(b"\r\n", 1)[0])
            if len(self._read) < end + 4 + length:
                return
            body = self._read[end + 4 : end + 4 + length]
            self._read = self._read[end + 4 + length :]
            echo = head.split(b" ", 2)[1].partition(b"?")[0].endswith(b"/echo")
            self._transport.write(HEAD % len(body) + body if echo else ANSWER)


async def _serve(certificate: str, key: str) -> None:
    loop = asyncio.get_running_loop()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    plain = await loop.create_server(_Exchange, "127.0.0.1", 0, backlog=512)
    secure = await loop.create_server(_Exchange, "127.0.0.1", 0, ssl=context, backlog=512)
    print(*(server.sockets[0].getsockname()[1] for server in (plain, secure)), flush=True)
    # Ends with the benchmark, however that ends: its standard input is then closed.
    await loop.run_in_executor(None, sys.stdin.read)


@dataclass(frozen=True, slots=True)
class Certificates:
    """Files: a CA bundle that holds the system's authorities and ours, a certificate, its key."""

    bundle: Path
    certificate: Path
    key: Path


def make_certificates(folder: Path) -> Certificates:
    """A certificate for localhost. `SSL_CERT_FILE` is to name the bundle, for every package alike."""
    found = Certificates(folder / "ca.pem", folder / "server.pem", folder / "server.key")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
            ),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    found.certificate.write_bytes(pem)
    found.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    found.bundle.write_bytes(_authorities() + b"\n" + pem)
    return found


def _authorities() -> bytes:
    """The authorities that a package would load without our bundle: that takes most of the time."""
    path = ssl.get_default_verify_paths()
    for candidate in (path.cafile, path.openssl_cafile, "/etc/ssl/certs/ca-certificates.crt"):
        if candidate and Path(candidate).is_file():
            return Path(candidate).read_bytes()
    try:
        import certifi
    except ImportError:
        return b""
    return Path(certifi.where()).read_bytes()


@contextlib.contextmanager
def trusting(bundle: Path) -> Iterator[None]:
    """One CA bundle for every package: httpx2, httpx and ssl read the first name, requests the other."""
    names = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, str(bundle)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def process(module: str, *arguments: str) -> Iterator[list[str]]:
    """A module of ours in a process of its own while the block runs; the words of its first line."""
    with subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    ) as child:
        assert child.stdout is not None and child.stdin is not None
        try:
            line = child.stdout.readline().decode().split()
            assert line, f"{module} did not start"
            yield line
        finally:
            child.stdin.close()
            child.wait(15)


@contextlib.contextmanager
def api_server(certificates: Certificates) -> Iterator[dict[str, str]]:
    """The server while the block runs: its base URLs by scheme."""
    names = (str(certificates.certificate), str(certificates.key))
    with process("bench.api_server", *names) as (plain, secure):
        yield {"http": f"http://localhost:{plain}", "https": f"https://localhost:{secure}"}


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], sys.argv[2]))
