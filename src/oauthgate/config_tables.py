"""Reading one table: unknown keys, references and types, each refusal naming its place and its cure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from . import references
from .errors import ConfigError
from .providers import SECRET_KEYS


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean "…"?` for a misspelt name, with the names there are when nothing is near."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f'; did you mean "{close[0]}"?'
    return f"; expected one of: {', '.join(names)}" if len(names) <= 30 else ""


T = TypeVar("T", bound=msgspec.Struct)


def read_table(kind: type[T], table: object, where: str, base: Path) -> T:
    """Check one table against the struct that describes it, its references resolved."""
    if not isinstance(table, dict):
        raise ConfigError(f"{where}: expected a table, found {type(table).__name__}")
    known = [item.name for item in msgspec.structs.fields(kind)]
    for key in table:
        if key not in known:
            raise ConfigError(f"{where} {key}: unknown key{nearest(key, known)}")
    values = {key: references.resolve(value, f"{where} {key}", base) for key, value in table.items()}
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(explain(error, table, where)) from None


def shown(url: str) -> str:
    """A URL as a message may hold it: without user name and password."""
    return re.sub(r"(?<=//)[^/?#]*@", "…@", url)


def explain(error: msgspec.ValidationError, written: dict[str, Any], where: str) -> str:
    """msgspec's complaint as ours: the key, what was found (unless secret), what was expected.

    `written` is the table as it stands in the file, with references instead of what they name; of a
    list or table nothing is shown, because one of its values may be a secret.
    """
    complaint, _, path = str(error).partition(" - at `")
    path = path.rstrip("`").removeprefix("$.").removeprefix("$")
    key = re.split(r"[.\[]", path)[0]
    if not key:
        return f"{where}: {complaint}"
    value = written.get(key)
    secret = key in SECRET_KEYS or key not in written or isinstance(value, (dict, list))
    found = "" if secret else f", found {value!r}"
    return f"{where} {path}: {complaint[:1].lower()}{complaint[1:]}{found}"
