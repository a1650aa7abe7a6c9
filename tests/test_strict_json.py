"""JSON as a boundary reads it: one meaning or none (RFC 8259, RFC 7493)."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oauthgate import strict_json
from oauthgate.strict_json import MAX_DEPTH, MAX_DIGITS, StrictJSONError

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXT, inner, max_size=5),
    max_leaves=20,
)


@given(JSON, st.booleans())
@settings(max_examples=500, deadline=None, derandomize=True)
def test_every_document_of_one_meaning_is_read(document: Any, ascii_only: bool) -> None:
    """Row 65: what another encoder writes is read as it was meant, escaped or not."""
    assert strict_json.loads(json.dumps(document, ensure_ascii=ascii_only).encode()) == document


@given(st.binary(max_size=60))
@settings(max_examples=1500, deadline=None, derandomize=True)
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    """Row 86: no bytes raise anything but the one error, and what is read another parser reads alike."""
    try:
        found = strict_json.loads(raw)
    except StrictJSONError:
        return
    assert found == json.loads(raw)


@given(
    st.lists(
        st.sampled_from([*'[]{}":,\\ 0-.eE+tfn', "1", '"a"', "true", "null", "\\ud800", "\ufeff"]),
        max_size=25,
    )
)
@settings(max_examples=2000, deadline=None, derandomize=True)
def test_mixtures_of_tokens_are_read_alike(parts: list[str]) -> None:
    """Row 86: what is accepted is accepted with the same meaning by a second, strict parser."""
    raw = "".join(parts).encode()
    try:
        found = strict_json.loads(raw)
    except StrictJSONError:
        return
    assert msgspec.json.decode(raw) == found


REFUSED: dict[str, bytes] = {
    "nothing": b"",
    "space": b" ",
    "BOM": b"\xef\xbb\xbf{}",
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "UTF-16 without BOM": '{"a":1}'.encode("utf-16-le"),
    "Latin-1": b'"\xe9"',
    "overlong": b'"\xc0\xaf"',
    "surrogate in UTF-8": b'"\xed\xa0\x80"',
    "lone high surrogate": b'"\\ud800"',
    "lone low surrogate": b'["\\udc00"]',
    "surrogates the wrong way round": b'"\\udc00\\ud800"',
    "lone surrogate as a name": b'{"\\ud800":1}',
    "lone surrogate in depth": b'{"a":[{"b":"\\uDFFF"}]}',
    "name twice": b'{"a":1,"a":1}',
    "name twice in depth": b'[{"x":{"a":1,"b":2,"a":3}}]',
    "name twice by an escape": b'{"a":1,"\\u0061":2}',
    "NaN": b"NaN",
    "Infinity": b"[Infinity]",
    "minus Infinity": b'{"a":-Infinity}',
    "1e999": b"1e999",
    "-1e999": b"-1e999",
    "leading zero": b"01",
    "plus": b"+1",
    "point first": b".5",
    "point last": b"5.",
    "hexadecimal": b"0x10",
    "underscore": b"1_000",
    "comment": b"/*a*/1",
    "trailing comma": b"[1,]",
    "two documents": b"1 2",
    "NUL after": b"1\x00",
    "control character": b'"\x1f"',
    "newline in text": b'"\n"',
    "bad escape": b'"\\x41"',
    "short escape": b'"\\u12"',
    "single quotes": b"'a'",
    "bare name": b"{a:1}",
    "unclosed": b'{"a":1',
    "unclosed text": b'"a',
    "True": b"True",
    "undefined": b"undefined",
    "digits": b"9" * (MAX_DIGITS + 1),
    "float digits": b"0." + b"1" * MAX_DIGITS,
    "many digits": b"9" * 1_000_000,
    "arrays too deep": b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1),
    "objects too deep": b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1),
    "a million brackets": b"[" * 1_000_000,
    "closing brackets": b"]" * 1000,
    "brackets after an escaped quote": b'["\\""' + b"[" * 100_000,
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_two_meanings_or_none_is_refused(case: str) -> None:
    """Rows 65 and 86: with the one error, whose text repeats nothing of the document."""
    with pytest.raises(StrictJSONError) as refused:
        strict_json.loads(REFUSED[case])
    assert refused.value.__cause__ is None
    assert len(str(refused.value)) < 80


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b'"\\ud83c\\udfb5"', "\U0001f3b5"),
        (b'"\\u0000"', "\x00"),
        (b'"[[[[{{{{"', "[[[[{{{{"),
        (b'"\\\\"', "\\"),
        (b"[" * MAX_DEPTH + b"]" * MAX_DEPTH, None),
        (b"9" * MAX_DIGITS, 10**MAX_DIGITS - 1),
        (b"1e300", 1e300),
        (b"-0", 0),
        (b'\t\r\n {"a":[1,2.5,null,true]} ', {"a": [1, 2.5, None, True]}),
        (b'["' + b"[" * 10_000 + b'"]', ["[" * 10_000]),
        (b'{"a":"\\\\ud800"}', {"a": "\\ud800"}),
    ],
)
def test_unusual_documents_that_are_right(raw: bytes, expected: object) -> None:
    """Row 65: brackets inside text are no nesting, pairs of surrogates are characters, limits are
    exact."""
    found = strict_json.loads(raw)
    if expected is not None:
        assert found == expected


@pytest.mark.parametrize("raw", [b"[]", b"null", b'"a"', b"1", b"true", b'[{"a":1}]'])
def test_an_object_is_asked_for(raw: bytes) -> None:
    """Row 86: any other type is no answer."""
    with pytest.raises(StrictJSONError, match="expected a JSON object"):
        strict_json.loads_object(raw)
    assert strict_json.loads_object(b'{"a":1}') == {"a": 1}
