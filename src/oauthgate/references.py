"""References in configuration strings: `env:NAME`, `file:/path`, `ssm:/path`.

A secret then never stands in the TOML file. A reference that cannot be resolved is refused at start,
naming the reference (which is not a secret) and never a value. The parameters that one configuration
names are asked for together, ten a request, so that a cold start waits once.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import ConfigError


def resolve(value: object, where: str, base: Path) -> object:
    """`value` with every reference in it replaced, in depth. `where` names file, table and key."""
    if isinstance(value, str):
        return _resolve_text(value, where, base)
    if isinstance(value, list):
        return [resolve(item, where, base) for item in value]
    if isinstance(value, dict):
        return {key: resolve(item, f"{where}.{key}", base) for key, item in value.items()}
    return value


def _resolve_text(text: str, where: str, base: Path) -> str:
    scheme, colon, rest = text.partition(":")
    resolver = _RESOLVERS.get(scheme) if colon else None
    return resolver(rest, where, base) if resolver else text


def _env(name: str, where: str, base: Path) -> str:
    value = os.environ.get(name)
    if not value:
        state = "not set" if value is None else "empty"
        raise ConfigError(
            f"{where}: the environment variable {name} is {state}; set it where the app is started"
        )
    return value


def _file(name: str, where: str, base: Path) -> str:
    try:
        path = base / Path(name).expanduser()
    except (RuntimeError, ValueError):
        raise ConfigError(f"{where}: file:{name!r} is not a path that can be used") from None
    try:
        value = path.read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        raise ConfigError(f"{where}: the file {path} cannot be read: {error.strerror}") from None
    except ValueError:  # not UTF-8, or a path with a NUL
        raise ConfigError(f"{where}: the file {path} is not UTF-8 text") from None
    if not value:
        raise ConfigError(f"{where}: the file {path} is empty")
    return value


#: Names that one request may have (GetParameters).
_BATCH = 10


@dataclass(slots=True)
class _Parameters:
    """What the parameter store answered for one configuration, and why it did not."""

    values: dict[str, str] = field(default_factory=dict, repr=False)
    failure: str = ""


_parameters: ContextVar[_Parameters | None] = ContextVar("parameters", default=None)


@contextlib.contextmanager
def fetched(document: object) -> Iterator[None]:
    """While a configuration is read: every parameter that it names, fetched with as few requests as can
    be, decrypted, and forgotten afterwards."""
    names = sorted(set(_names(document)))
    token = _parameters.set(_fetch(names) if names else None)
    try:
        yield
    finally:
        _parameters.reset(token)


def _names(value: object) -> Iterator[str]:
    """The parameters that a document names, in depth."""
    if isinstance(value, str) and value.startswith("ssm:"):
        yield value.removeprefix("ssm:")
    elif isinstance(value, (list, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _names(item)


def _fetch(names: list[str]) -> _Parameters:
    found = _Parameters()
    try:
        import boto3.session
    except ImportError:
        found.failure = "needs the AWS client; install it with: pip install oauthgate[aws]"
        return found
    try:
        # A session of its own: boto3's shared one is not made for threads.
        with contextlib.closing(boto3.session.Session().client("ssm")) as client:
            for start in range(0, len(names), _BATCH):
                answer: dict[str, Any] = client.get_parameters(
                    Names=names[start : start + _BATCH], WithDecryption=True
                )
                for parameter in answer["Parameters"]:
                    # It may have been named with a version or a label, or by its ARN.
                    selector = parameter.get("Selector", "")
                    for name in (parameter["Name"], parameter.get("ARN", "")):
                        found.values[f"{name}{selector}"] = parameter["Value"]
                        found.values[f"{name}:{parameter['Version']}"] = parameter["Value"]
    except Exception as error:  # botocore's errors share no root that is importable without it
        # What AWS itself says is told by a code: AccessDeniedException, ThrottlingException.
        said = getattr(error, "response", None) or {}
        reason = said.get("Error", {}).get("Code") or type(error).__name__
        found.failure = f"cannot be read ({reason})"
    return found


def _ssm(name: str, where: str, base: Path) -> str:
    parameters = _parameters.get() or _fetch([name])
    value = parameters.values.get(name)
    if value is None:
        reason = parameters.failure or "does not exist in this account and region"
        raise ConfigError(f"{where}: the parameter ssm:{name} {reason}")
    return value


_RESOLVERS: dict[str, Callable[[str, str, Path], str]] = {
    "env": _env,
    "file": _file,
    "ssm": _ssm,
}
