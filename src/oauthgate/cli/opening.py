"""Opening what a command works on: a configuration's gate, or a store by its URL. Makes nothing.

A site makes its database and its key file by itself at its first use. A command must not: with a
mistyped path it would report an empty site, and leave a file behind that says so for ever.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import unquote

import msgspec

from ..config import Config
from ..errors import ConfigError
from ..gate import Gate
from ..io_blocking import BlockingIO
from ..keyfile import key_file
from ..providers import SECRET_KEYS
from ..references import resolve
from ..stores import Store, make_store
from .output import Output, Problem


def load(path: str, out: Output) -> Config:
    """The configuration, its secrets hidden from now on. Raises `Problem`."""
    try:
        config = Config.load(path)
    except ConfigError as error:
        raise Problem(str(error)) from None
    hide_secrets(config, out)
    return config


def hide_secrets(config: Config, out: Output) -> None:
    out.hide(secret.decode("utf-8", "replace") for secret in config.secrets)
    out.hide(config.api_token_keys)
    out.hide_url(config.store)
    for provider in config.providers.values():
        values = msgspec.structs.asdict(provider)
        out.hide(str(values[name]) for name in SECRET_KEYS if values.get(name))
    path = key_file(config)
    if path is not None and path.is_file():
        out.hide([path.read_text(errors="replace").strip()])


def database(url: str) -> Path | None:
    """The file of a SQLite URL."""
    scheme, _, rest = url.partition(":")
    return Path(unquote(rest[3:])).absolute() if scheme == "sqlite" else None


def require_store(url: str) -> None:
    """Raises `Problem` for a store that is not there, or that nobody outside the site can reach."""
    if url.partition(":")[0] == "memory":
        raise Problem("the store memory: is inside the site's own process; use another store")
    path = database(url)
    if path is not None and not path.is_file():
        raise Problem(
            f"there is no database {path}: the site makes it at its first use, or: oauthgate store init"
        )


@asynccontextmanager
async def gate(
    config: Config, *, hooks: bool = False, existing: bool = True, writes: bool = False
) -> AsyncIterator[Gate]:
    """A gate over the configuration's store. The application's hooks are loaded only for what they are
    to be told of; `writes` says that records will be written. Raises `Problem`."""
    if existing:
        require_store(config.store)
        path = key_file(config)
        if path is not None and not path.exists():
            raise Problem(
                f"there is no key file {path} for this database: restore it, or set [oauthgate] secret; "
                "without it no record can be opened"
            )
    if hooks and config.hooks and str(Path.cwd()) not in sys.path:
        # The application's hooks are found where it is started. Behind everything that is installed:
        # who may write into this folder must not be able to stand in for a library.
        sys.path.append(str(Path.cwd()))
    try:
        opened = Gate(config if hooks else dataclasses.replace(config, hooks={}), BlockingIO())
    except ConfigError as error:
        raise Problem(str(error)) from None
    opened.vault.joins = writes
    try:
        yield opened
    finally:
        await opened.close()


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """One of the two stores of a copy: its URL, and its configuration if it was named by one."""

    url: str
    config: Config | None

    def store(self) -> Store:
        try:
            return make_store(self.url, blocking=True)
        except ConfigError as error:
            raise Problem(str(error)) from None


def place(text: str, out: Output) -> Place:
    """A store by its URL, a reference to one, or a configuration file. Raises `Problem`."""
    try:
        url = str(resolve(text, "the store", Path.cwd()))
    except ConfigError as error:
        raise Problem(str(error)) from None
    if url.endswith(".toml") or (":" not in url and Path(url).is_file()):
        config = load(url, out)
        return Place(config.store, config)
    if ":" not in url:
        raise Problem(
            f"{text}: neither a configuration file nor the URL of a store, such as sqlite:///gate.db"
        )
    out.hide_url(url)
    return Place(url, None)


def describe(store: Store) -> str:
    """A store as a message may name it: every store of ours leaves credentials out of its `repr`."""
    inner = getattr(store, "inner", store)
    plain = type(inner).__repr__ is object.__repr__
    return type(inner).__name__ if plain else repr(inner)
