"""The secret of a site that configured none: a file beside its SQLite database, mode 0600."""

from __future__ import annotations

import logging
import os
import secrets
import stat
from pathlib import Path
from urllib.parse import unquote

from .config import Config
from .errors import ConfigError
from .seal import Keys

log = logging.getLogger("oauthgate")


def load_keys(config: Config) -> Keys:
    """The keys of a configuration. Raises `ConfigError` when there is no place to keep a secret."""
    if config.secrets:
        return Keys(config.secrets)
    scheme, _, rest = config.store.partition(":")
    if scheme == "memory":
        # What is in memory ends with the process, and so may its key.
        return Keys([secrets.token_bytes(32)])
    if scheme != "sqlite":
        raise ConfigError(
            "[oauthgate] secret: missing; a store that several machines share needs one, for example "
            'secret = ["env:OAUTHGATE_SECRET"]'
        )
    return Keys([_read_or_make(Path(unquote(rest[3:]) + ".key"))])


def key_file(config: Config) -> Path | None:
    """Where the key of this configuration is, if it is in a file beside its SQLite database."""
    scheme, _, rest = config.store.partition(":")
    return None if config.secrets or scheme != "sqlite" else Path(unquote(rest[3:]) + ".key")


def _read_or_make(path: Path) -> bytes:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Written aside and linked into place: two processes that start at once agree on one key, and
        # a crash leaves either the whole key or none.
        fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        if not path.exists():
            handle = os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY, stat.S_IRUSR | stat.S_IWUSR)
            try:
                os.write(handle, secrets.token_urlsafe(32).encode())
                os.fsync(handle)
            finally:
                os.close(handle)
            try:
                os.link(fresh, path)
                log.warning(
                    "no secret is configured: made the key file %s; whoever has it and the database "
                    "can read all tokens, and without it they are lost (set [oauthgate] secret to "
                    "keep the key elsewhere)",
                    path,
                )
            except FileExistsError:
                pass
            finally:
                fresh.unlink()
        if path.stat().st_mode & 0o077:
            raise ConfigError(f"the key file {path} can be read by others; run: chmod 600 {path}")
        return path.read_bytes().strip()
    except OSError as error:
        raise ConfigError(
            f"the key file {path} cannot be used: {error.strerror}; set [oauthgate] secret instead"
        ) from None
