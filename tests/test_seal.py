"""Sealing: what was moved, changed, cut or sealed with another key does not open."""

from __future__ import annotations

import hashlib
from collections import Counter

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from oauthgate.errors import ConfigError, SealError
from oauthgate.seal import HEADER_LENGTH, KEY_ID_LENGTH, Keys, derive

OLD, NEW, OTHER = (bytes([number]) * 32 for number in (1, 2, 3))


@given(st.text(st.characters(codec="utf-8"), max_size=80), st.binary(max_size=3000))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_what_was_sealed_opens_under_its_name(name: str, plaintext: bytes) -> None:
    """Row 104: it opens under exactly its name, and under none that is near."""
    keys = Keys([OLD])
    sealed = keys.seal(name, plaintext)
    assert keys.open(name, sealed) == plaintext
    for other in (name + "x", name[:-1] + "\x00", f"{name}/", f" {name}", "", name.upper() + "!"):
        if other != name:
            with pytest.raises(SealError):
                keys.open(other, sealed)


def test_a_moved_ciphertext_does_not_open() -> None:
    """Row 104: between rows, users, kinds of record and cookies."""
    keys = Keys([OLD])
    names = [
        "user/a",
        "user/b",
        "account/a",
        "flow/a",
        "answer/a",
        "lease/a",
        "flow-used/a",
        "meta/key-check",
    ]
    sealed = {name: keys.seal(name, b"value") for name in names}
    for place in names:
        for name in names:
            if place == name:
                assert keys.open(place, sealed[name]) == b"value"
            else:
                with pytest.raises(SealError, match="another name"):
                    keys.open(place, sealed[name])


def test_every_flipped_bit_is_noticed() -> None:
    """Row 103: each single bit of header, nonce, ciphertext and tag."""
    keys = Keys([OLD])
    sealed = keys.seal("user/a", b"a value of some length")
    for position in range(len(sealed) * 8):
        changed = bytearray(sealed)
        changed[position // 8] ^= 1 << position % 8
        with pytest.raises(SealError):
            keys.open("user/a", bytes(changed))


def test_every_truncation_and_extension_is_noticed() -> None:
    """Row 103: a value cut anywhere, or with something behind it."""
    keys = Keys([OLD])
    sealed = keys.seal("user/a", b"a value of some length")
    for length in range(len(sealed)):
        with pytest.raises(SealError):
            keys.open("user/a", sealed[:length])
    for more in (b"\x00", b"x" * 16, sealed):
        with pytest.raises(SealError):
            keys.open("user/a", sealed + more)


@pytest.mark.parametrize(
    "plain",
    [
        b"",
        b"{}",
        b"plaintext",
        b'{"user":"a"}',
        b"\x01" + b"\x00" * 60,
        b"\x01" * 16,
        bytes(range(99)),
    ],
)
def test_there_is_no_way_to_plaintext(plain: bytes) -> None:
    """Row 104: a row that was written without the key is never read."""
    with pytest.raises(SealError):
        Keys([OLD]).open("user/a", plain)


def test_rotation() -> None:
    """Row 105: the first secret seals, all of them open, and one that is gone is named as such."""
    before, both, after = Keys([OLD]), Keys([NEW, OLD]), Keys([NEW])
    old = before.seal("user/a", b"old")
    assert both.open("user/a", old) == b"old"
    new = both.seal("user/a", b"new")
    assert both.open("user/a", new) == after.open("user/a", new) == b"new"
    with pytest.raises(SealError, match="not configured") as refused:
        after.open("user/a", old)
    assert refused.value.unknown_key
    with pytest.raises(SealError) as refused:
        before.open("user/a", new)
    assert refused.value.unknown_key
    damaged = old[:-1] + bytes([old[-1] ^ 1])
    with pytest.raises(SealError) as refused:
        both.open("user/a", damaged)
    assert not refused.value.unknown_key


def test_keyed_hashes_survive_a_rotation() -> None:
    """Row 105: the first secret makes the hashes too, and a look-up tries them all."""
    before, both = Keys([OLD]), Keys([NEW, OLD])
    assert both.hash("session", b"v") == Keys([NEW]).hash("session", b"v")
    assert before.hash("session", b"v") in both.hashes("session", b"v")
    assert both.hashes("session", b"v")[0] == both.hash("session", b"v")
    assert Keys([OTHER]).hash("session", b"v") not in both.hashes("session", b"v")


def test_keyed_hashes_are_apart_by_purpose() -> None:
    """Row 57: one value has unrelated hashes for two purposes, and no purpose runs into the value."""
    keys = Keys([OLD])
    found = [
        keys.hash(purpose, value)
        for purpose, value in [("a", b"bc"), ("ab", b"c"), ("", b"abc"), ("a", b"bd")]
    ]
    assert len(set(found)) == 4
    assert all(len(digest) == 32 for digest in found)
    assert hashlib.sha256(b"bc").digest() not in found


@pytest.mark.parametrize("secret", [b"", b"short", b"x" * 31])
def test_a_weak_secret_is_refused(secret: bytes) -> None:
    """Row 105: start is refused with the length that is needed and a command that makes one."""
    for weak in ([secret], [OLD, secret]):
        with pytest.raises(ConfigError, match="at least 32") as refused:
            Keys(weak)
        assert secret == b"" or secret.decode() not in str(refused.value).replace("at least", "")
    with pytest.raises(ConfigError):
        Keys([])


def test_keys_are_apart_by_purpose() -> None:
    """One secret makes a key of its own for every purpose."""
    found = [derive(OLD, purpose) for purpose in ("seal", "hash", "key-id", "csrf", "sea", "")]
    assert len(set(found)) == len(found)
    assert OLD not in found


def test_nonces_never_repeat_and_values_differ() -> None:
    """Row 57: the same value sealed ten thousand times looks different each time."""
    keys = Keys([OLD])
    sealed = [keys.seal("n", b"v") for _ in range(10_000)]
    nonces = Counter(value[1 + KEY_ID_LENGTH : HEADER_LENGTH] for value in sealed)
    assert max(nonces.values()) == 1
    assert len(set(sealed)) == len(sealed)


def test_the_envelope_is_what_it_says() -> None:
    """Row 106: version, key id, nonce, AES-256-GCM with version, key id and name as associated data; a
    later version must be able to read it."""
    keys = Keys([OLD])
    sealed = keys.seal("user/a", b"value")
    assert sealed[:1] == b"\x01" and sealed[1:5] == keys.key_id
    cipher = AESGCM(derive(OLD, "seal"))
    assert cipher.decrypt(sealed[5:17], sealed[17:], sealed[:5] + b"user/a") == b"value"
    for version in (0, 2, 255):
        with pytest.raises(SealError, match="known version"):
            keys.open("user/a", bytes([version]) + sealed[1:])


def test_no_secret_is_shown() -> None:
    """Row 76: neither the keys nor an error show a secret, a value or a name."""
    secret = b"s3cret" * 8
    keys = Keys([secret])
    assert "s3cret" not in repr(keys) + str(keys)
    with pytest.raises(SealError) as refused:
        keys.open("user/somebody", keys.seal("user/stranger", b"private"))
    assert not any(word in str(refused.value) for word in ("somebody", "stranger", "private", "s3cret"))
