"""OAuth 1.0a signatures (RFC 5849 section 3) against published vectors and against oauthlib."""

from __future__ import annotations

import base64
import os
import random
import re
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple
from urllib.parse import quote, quote_plus, unquote

import httpx2
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from oauthlib.oauth1.rfc5849 import signature as oauthlib_signature

from oauthgate.protocols import oauth1, oauth1_signature
from oauthgate.providers import Provider

REQUESTS = 100_000


class Secrets(NamedTuple):
    """The two secrets, in the words of oauthlib's signers."""

    client_secret: str
    resource_owner_secret: str


SIGNERS = {
    "HMAC-SHA1": oauthlib_signature.sign_hmac_sha1_with_client,
    "HMAC-SHA256": oauthlib_signature.sign_hmac_sha256_with_client,
    "PLAINTEXT": oauthlib_signature.sign_plaintext_with_client,
}


def fields(header: str) -> dict[str, str]:
    """The parameters of an `Authorization: OAuth` header, decoded."""
    scheme, _, rest = header.partition(" ")
    assert scheme == "OAuth"
    found = re.findall(r'([^=,\s]+)="([^"]*)"', rest)
    assert len(dict(found)) == len(found)
    return {unquote(name): unquote(value) for name, value in found}


def rfc_signature(
    method: str,
    url: str,
    protocol: list[tuple[str, str]],
    body: str,
    client_secret: str,
    token_secret: str,
) -> str:
    """HMAC-SHA1 over exactly the parameters of one of the RFC's examples, which have no version."""
    pairs = [*oauth1_signature.decode_pairs(body), *protocol]
    base_string = oauth1_signature.signature_base_string(method, url, pairs)
    return oauth1_signature.sign(
        "HMAC-SHA1", base_string, client_secret=client_secret, token_secret=token_secret
    )


def test_rfc_5849_base_string() -> None:
    """Row 48: the worked example of section 3.4.1.1, and the signature that its secrets give."""
    url = "http://EXAMPLE.COM:80/request?b5=%3D%253D&a3=a&c%40=&a2=r%20b"
    protocol = [
        ("oauth_consumer_key", "9djdj82h48djs9d2"),
        ("oauth_token", "kkk9d7dh3k39sjv7"),
        ("oauth_signature_method", "HMAC-SHA1"),
        ("oauth_timestamp", "137131201"),
        ("oauth_nonce", "7d8f3e4a"),
    ]
    pairs = [*oauth1_signature.decode_pairs("c2&a3=2+q"), *protocol]
    assert oauth1_signature.signature_base_string("post", url, pairs) == (
        "POST&http%3A%2F%2Fexample.com%2Frequest&a2%3Dr%2520b%26a3%3D2%2520q%26a3%3Da%26b5%3D%253D%25253D"
        "%26c%2540%3D%26c2%3D%26oauth_consumer_key%3D9djdj82h48djs9d2%26oauth_nonce%3D7d8f3e4a"
        "%26oauth_signature_method%3DHMAC-SHA1%26oauth_timestamp%3D137131201"
        "%26oauth_token%3Dkkk9d7dh3k39sjv7"
    )
    # The RFC prints another signature here; its errata and every implementation agree on this one.
    found = rfc_signature("POST", url, protocol, "c2&a3=2+q", "j49sk3j29djd", "dh893hdasih9")
    assert found == "r6/TJjbCOr97/+UU0NsvSne7s5g="


@pytest.mark.parametrize(
    ("method", "url", "protocol", "token_secret", "expected"),
    [
        pytest.param(
            "POST",
            "https://photos.example.net/initiate",
            {"oauth_callback": "http://printer.example.com/ready"}
            | {"oauth_timestamp": "137131200", "oauth_nonce": "wIjqoS"},
            "",
            "74KNZJeDHnMBp0EMJ9ZHt/XKycU=",
            id="temporary-credentials",
        ),
        pytest.param(
            "POST",
            "https://photos.example.net/token",
            {"oauth_token": "hh5s93j4hdidpola", "oauth_verifier": "hfdp7dh39dks9884"}
            | {"oauth_timestamp": "137131201", "oauth_nonce": "walatlh"},
            "hdhd0244k9j7ao03",
            "gKgrFCywp7rO0OXSjdot/IHF7IU=",
            id="token-credentials",
        ),
        pytest.param(
            "GET",
            "http://photos.example.net/photos?file=vacation.jpg&size=original",
            {"oauth_token": "nnch734d00sl2jdk"}
            | {"oauth_timestamp": "137131202", "oauth_nonce": "chapoH"},
            "pfkkdhi9sl3r4s00",
            "MdpQcU8iPSUjWoN/UDMsK2sui9I=",
            id="protected-resource",
        ),
    ],
)
def test_rfc_5849_section_1_2(
    method: str, url: str, protocol: dict[str, str], token_secret: str, expected: str
) -> None:
    """Row 48: the three signatures of the RFC's introductory example."""
    client = {"oauth_consumer_key": "dpf43f3p2l4k3l03", "oauth_signature_method": "HMAC-SHA1"}
    pairs = list((client | protocol).items())
    assert rfc_signature(method, url, pairs, "", "kd94hf93k423kf44", token_secret) == expected


def test_twitters_example() -> None:
    """Row 48: X's page «Creating a signature», through the header that is really sent."""
    header = oauth1_signature.signed_header(
        "POST",
        "https://api.twitter.com/1.1/statuses/update.json?include_entities=true",
        [("status", "Hello Ladies + Gentlemen, a signed OAuth request!")],
        consumer_key="xvz1evFS4wEEPTGEFPHBog",
        client_secret="kAcSOqF21Fu85e7zjz7ZN2U4ZRhfV3WpwPAoE3Z7kBw",
        token="370773112-GmHxMAgYyLbNEtIKZeRNFsMKPR9EyMZeS9weJAEb",
        token_secret="LswwdoUaIvS8ltyTt5jkRh4J50vUPVVHtR2YPi5kE",
        timestamp=1318622958,
        nonce_value="kYjzVBB8Y0ZFabxSWbWovY3uYSQ2pTgmZeNu2VS4cg",
    )
    sent = fields(header)
    assert sent["oauth_signature"] == "hCtSmYh+iHYCEqBWrE7C7hYmtUk="
    assert sent["oauth_version"] == "1.0"
    assert "realm" not in sent


CHARACTERS = "abcXYZ019-._~ +%&=/?:;@!$'()*,[]{}|\\^`\"<>#éü漢字🎵\t\n\x00"


class Generator:
    """Random requests whose every part is spelt as a client may send it."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        texts = ["", *("".join(self._random.choices(CHARACTERS, k=1 + n % 5)) for n in range(2_000))]
        # A space as `+` and as `%20`, and every other character raw or encoded, are met in the wild.
        self._spelt = [(text, spell(text)) for text in texts for spell in (quote_plus, quote)]

    def text(self) -> str:
        return self._spelt[int(self._random.random() * len(self._spelt))][0]

    def _encoded(self) -> str:
        return self._spelt[int(self._random.random() * len(self._spelt))][1]

    def query(self) -> str:
        """Up to three parameters: empty names and values, repeated names, repeated pairs."""
        chance = self._random.random()
        first = f"{self._encoded()}={self._encoded()}"
        if chance < 0.3:
            return ""
        if chance < 0.5:
            return f"{first}&{self._encoded()}={self._encoded()}"
        if chance < 0.6:
            return f"{first}&{first.partition('=')[0]}={self._encoded()}"
        return f"{first}&a=&{first}" if chance < 0.7 else first

    def url(self) -> str:
        choice = self._random.choice
        scheme = choice(["http", "https"])
        host = choice(["example.com", "EXAMPLE.com", "Api.Example.NET", "127.0.0.1", "[2001:db8::1]"])
        port = choice(["", "", ":80", ":443", ":8080", ":65535"])
        return f"{scheme}://{host}{port}/{self._encoded().replace('+', '%20')}"

    def method(self) -> str:
        return self._random.choice(["GET", "POST", "PUT", "DELETE", "post"])


def test_random_requests_agree_with_oauthlib() -> None:
    """Row 48: 10^5 random requests are signed as a second implementation signs them.

    Of each the text that is signed is compared; of every tenth also the whole header, as its parser
    reads it, with the signature.
    """
    generator = Generator(5849)
    for number in range(REQUESTS):
        method, url = generator.method(), generator.url()
        query, body = generator.query(), generator.query()
        whole = f"{url}?{query}" if query else url
        body_pairs = oauth1_signature.decode_pairs(body)
        if number % 10:
            protocol = [("oauth_consumer_key", "key~ +é"), ("oauth_nonce", "n")]
            ours = oauth1_signature.signature_base_string(method, whole, [*body_pairs, *protocol])
            sent = [*oauthlib_signature.collect_parameters(query, body), *protocol]
            assert ours == base_string_of_oauthlib(method, url, sent), (method, whole, body)
            continue
        secrets = Secrets(generator.text(), generator.text())
        signature_method = "HMAC-SHA256" if number % 20 else "HMAC-SHA1"
        header = oauth1_signature.signed_header(
            method,
            whole,
            body_pairs,
            consumer_key="key~ +é",
            client_secret=secrets.client_secret,
            token="token",
            token_secret=secrets.resource_owner_secret,
            signature_method=signature_method,
            realm="a realm",
        )
        sent = oauthlib_signature.collect_parameters(query, body, {"Authorization": header})
        expected = SIGNERS[signature_method](base_string_of_oauthlib(method, url, sent), secrets)
        assert fields_signature(header) == expected, (method, whole, body)


def base_string_of_oauthlib(method: str, url: str, pairs: list[tuple[str, str]]) -> str:
    found: str = oauthlib_signature.signature_base_string(
        method,
        oauthlib_signature.base_string_uri(url),
        oauthlib_signature.normalize_parameters(pairs),
    )
    return found


def fields_signature(header: str) -> str:
    """Only the signature of a header, which comes last."""
    return unquote(header.rpartition('oauth_signature="')[2].rstrip('"'))


def test_rsa_sha1_verifies_with_the_public_key() -> None:
    """Row 48: RSA-SHA1 (section 3.4.3) over the base string of an independent implementation."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
    header = oauth1_signature.signed_header(
        "GET",
        "https://api.example.com/a?b=c%20d",
        [],
        consumer_key="key",
        client_secret="",
        token="token",
        signature_method="RSA-SHA1",
        private_key=oauth1_signature.load_private_key(pem),
    )
    collected = oauthlib_signature.collect_parameters("b=c%20d", None, {"Authorization": header})
    base_string = oauthlib_signature.signature_base_string(
        "GET", "https://api.example.com/a", oauthlib_signature.normalize_parameters(collected)
    )
    signature = base64.b64decode(fields(header)["oauth_signature"], validate=True)
    key.public_key().verify(signature, base_string.encode(), padding.PKCS1v15(), hashes.SHA1())


def test_plaintext_is_the_two_escaped_secrets() -> None:
    """Section 3.4.4: PLAINTEXT is encoded once inside the key and once for the header, not twice."""
    header = oauth1_signature.signed_header(
        "GET",
        "https://api.example.com/",
        [],
        consumer_key="key",
        client_secret="djr9rjt0jd78jf88",
        token_secret="jjd99$tj88uiths3",
        signature_method="PLAINTEXT",
    )
    assert fields(header)["oauth_signature"] == "djr9rjt0jd78jf88&jjd99%24tj88uiths3"
    expected = SIGNERS["PLAINTEXT"]("", Secrets("djr9rjt0jd78jf88", "jjd99$tj88uiths3"))
    assert fields(header)["oauth_signature"] == expected


def test_an_unknown_method_and_a_missing_key_are_refused() -> None:
    """A signature method that is not implemented never becomes an unsigned request."""
    for method in ("HMAC-MD5", "", "none", "RSA-SHA1"):
        with pytest.raises(ValueError, match=r"signature method|private key"):
            oauth1_signature.sign(method, "base", client_secret="a", token_secret="b")
    for pem in ("", "nonsense", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"):
        with pytest.raises(ValueError, match="RSA private key"):
            oauth1_signature.load_private_key(pem)


def signing_provider(**changes: str) -> Provider:
    return Provider(name="p", protocol="oauth1", client_id="key", client_secret="secret", **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("content_type", "signed"),
    [
        ("application/x-www-form-urlencoded", True),
        ("Application/X-WWW-Form-Urlencoded; charset=utf-8", True),
        ("application/json", False),
        ("multipart/form-data; boundary=x", False),
        ("text/plain", False),
        ("", False),
    ],
)
def test_only_a_form_body_is_signed(content_type: str, signed: bool) -> None:
    """Row 48: a JSON, multipart or plain body is sent as it stands and is not part of the signature."""
    headers = {"content-type": content_type} if content_type else {}
    request = httpx2.Request(
        "POST", "https://api.example.com/x?q=1", content=b"a=1&b=+", headers=headers
    )
    oauth1.authorize(signing_provider(), request, token="t", token_secret="u")
    header = request.headers["authorization"]
    collected = oauthlib_signature.collect_parameters(
        "q=1", "a=1&b=+" if signed else None, {"Authorization": header}
    )
    base_string = oauthlib_signature.signature_base_string(
        "POST", "https://api.example.com/x", oauthlib_signature.normalize_parameters(collected)
    )
    assert fields(header)["oauth_signature"] == SIGNERS["HMAC-SHA1"](base_string, Secrets("secret", "u"))
    assert request.read() == b"a=1&b=+"
    assert "secret" not in str(request.url)


def test_a_body_that_is_not_utf_8_is_signed_as_it_is_sent() -> None:
    """Row 48: bytes that no text stands for keep their percent-encoding in the base string."""
    request = httpx2.Request(
        "POST",
        "https://api.example.com/x",
        content=b"a=%FF&b=\xfe",
        headers={"content-type": "application/x-www-form-urlencoded"},
    )
    oauth1.authorize(signing_provider(), request)
    sent = fields(request.headers["authorization"])
    protocol = [(name, value) for name, value in sent.items() if name != "oauth_signature"]
    pairs = [*oauth1_signature.decode_pairs("a=%FF&b=%FE"), *protocol]
    base_string = oauth1_signature.signature_base_string("POST", "https://api.example.com/x", pairs)
    assert "a%3D%25FF%26b%3D%25FE" in base_string
    expected = oauth1_signature.sign("HMAC-SHA1", base_string, client_secret="secret", token_secret="")
    assert sent["oauth_signature"] == expected


def test_nonces_never_repeat_in_parallel_or_after_a_fork() -> None:
    """Row 49: 10^4 nonces of 16 threads and of two forked children are all different."""
    with ThreadPoolExecutor(16) as threads:
        found = list(threads.map(lambda _: oauth1_signature.nonce(), range(10_000)))
    for _ in range(2):
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            with os.fdopen(writer, "w") as pipe:
                pipe.write("\n".join(oauth1_signature.nonce() for _ in range(5_000)))
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            found.extend(pipe.read().split("\n"))
        os.waitpid(pid, 0)
    found.extend(oauth1_signature.nonce() for _ in range(5_000))
    assert len(found) == 25_000
    assert len(set(found)) == len(found)
    assert all(re.fullmatch(r"[0-9a-f]{16,40}", nonce) for nonce in found)
