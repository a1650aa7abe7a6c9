"""JSON as a security boundary reads it: one meaning per text, or none (RFC 8259, RFC 7493).

Parsers that differ on repeated names, on numbers or on broken Unicode let two programs see two
different documents in the same bytes, so everything they could differ on is refused here.
"""

from __future__ import annotations

import json
from typing import Any

MAX_DEPTH = 32
MAX_DIGITS = 64


class StrictJSONError(ValueError):
    """The bytes are not one unambiguous JSON document."""


def loads(raw: bytes) -> Any:  # noqa: ANN401 - JSON is any of its types; callers check with isinstance
    """Parse UTF-8 JSON without repeated names, NaN, lone surrogates, deep nesting or giant numbers."""
    # Counting is C; only what could be too deep is walked through.
    if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH and _depth(raw) > MAX_DEPTH:
        raise StrictJSONError(f"nested deeper than {MAX_DEPTH}")
    try:
        text = raw.decode("utf-8")
        value = _DECODER.decode(text)
    except StrictJSONError:
        raise
    except (ValueError, RecursionError):
        raise StrictJSONError("not valid JSON in UTF-8") from None
    # Escaped lone surrogates survive the parser and would break every later encoder.
    if "\\u" in text:
        _check_text(value)
    return value


def loads_object(raw: bytes) -> dict[str, Any]:
    """Parse a JSON object; any other type is refused."""
    value = loads(raw)
    if not isinstance(value, dict):
        raise StrictJSONError("expected a JSON object")
    return value


def _depth(raw: bytes) -> int:
    # An upper bound without recursion: brackets inside strings are not counted.
    depth = deepest = 0
    in_string = escaped = False
    for byte in raw:
        if in_string:
            if escaped:
                escaped = False
            elif byte == 0x5C:
                escaped = True
            elif byte == 0x22:
                in_string = False
        elif byte == 0x22:
            in_string = True
        elif byte in b"[{":
            depth += 1
            if depth > deepest:
                deepest = depth
                if deepest > MAX_DEPTH:
                    break
        elif byte in b"]}":
            depth -= 1
    return deepest


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise StrictJSONError("a name is repeated in an object")
    return result


def _constant(name: str) -> float:
    raise StrictJSONError(f"{name} is not JSON")


def _integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise StrictJSONError(f"a number has more than {MAX_DIGITS} digits")
    return int(text)


def _float(text: str) -> float:
    if len(text) > MAX_DIGITS:
        raise StrictJSONError(f"a number has more than {MAX_DIGITS} digits")
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise StrictJSONError("a number is out of range")
    return value


#: Made once: `json.loads` with such hooks would make one for each text.
_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_constant, parse_int=_integer, parse_float=_float
)


def _check_text(value: object) -> None:
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise StrictJSONError("a string holds a lone surrogate") from None
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_text(key)
            _check_text(item)
    elif isinstance(value, list):
        for item in value:
            _check_text(item)
