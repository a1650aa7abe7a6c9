"""References in configuration strings: `env:NAME`, `file:/path`, `ssm:/path`.

A secret then never stands in the TOML file. A reference that cannot be resolved is refused at start,
naming the reference (which is not a secret) and never a value.
"""

from __future__ import annotations

import os
from collections.abc import Callable
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


def _ssm(name: str, where: str, base: Path) -> str:
    try:
        import boto3
    except ImportError:
        raise ConfigError(
            f"{where}: ssm:{name} needs the AWS client; install it with: pip install oauthgate[aws]"
        ) from None
    client: Any = boto3.client("ssm")
    try:
        answer = client.get_parameter(Name=name, WithDecryption=True)
    except Exception as error:  # botocore's errors share no root that is importable without it
        raise ConfigError(
            f"{where}: the parameter ssm:{name} cannot be read ({type(error).__name__})"
        ) from None
    value: str = answer["Parameter"]["Value"]
    return value


_RESOLVERS: dict[str, Callable[[str, str, Path], str]] = {
    "env": _env,
    "file": _file,
    "ssm": _ssm,
}
