"""`backup`: a consistent copy of the SQLite database while the site serves."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from ..keyfile import key_file
from ..stores.sqlite_backup import backup as copy_file
from .opening import database, load, require_store
from .output import Output, Problem

#: How the other engines are backed up: with what they bring.
ENGINES = {
    "postgres": "pg_dump",
    "postgresql": "pg_dump",
    "redis": "redis-cli --rdb FILE",
    "rediss": "redis-cli --tls --rdb FILE",
    "unix": "redis-cli -s SOCKET --rdb FILE",
    "redis+sentinel": "redis-cli --rdb FILE, at the primary",
    "rediss+sentinel": "redis-cli --tls --rdb FILE, at the primary",
    "redis+cluster": "redis-cli --cluster backup HOST:PORT FOLDER",
    "rediss+cluster": "redis-cli --tls --cluster backup HOST:PORT FOLDER",
    "dynamodb": "aws dynamodb create-backup, or point-in-time recovery",
}


async def backup(args: Namespace, out: Output) -> int:
    """Back the database up into a new file."""
    config = load(args.config, out)
    require_store(config.store)
    source = database(config.store)
    if source is None:
        scheme = config.store.partition(":")[0]
        tool = ENGINES.get(scheme, "the tool of its own engine")
        raise Problem(
            f"this command backs up SQLite; the store is {scheme}: use {tool}, or copy it into a SQLite "
            "file: oauthgate store copy"
        )
    target = Path(args.file)
    records = copy_file(source, target)
    key = key_file(config)
    out.document(
        {
            "file": str(target),
            "records": records,
            "bytes": target.stat().st_size,
            "key_file": str(key) if key else None,
        }
    )
    out.say(f"{target}: {records} records, {target.stat().st_size} bytes")
    secret = f"the key file {key}" if key else "[oauthgate] secret"
    out.say(f"it opens with {secret} only, which is not in it: keep that too, in another place")
    return 0
