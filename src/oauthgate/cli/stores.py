"""`store init`, `store migrate`, `store copy`: making a store ready, moving a site to another one."""

from __future__ import annotations

from argparse import Namespace

from ..copying import NotCopied
from ..copying import copy as copy_records
from ..errors import ConfigError, SealError
from ..keyfile import key_file, load_keys
from ..keyring import KEY_CHECK
from ..stores import Store
from .opening import Place, describe, gate, load, place, require_store
from .output import Output, Problem
from .progress import Progress


async def init(args: Namespace, out: Output) -> int:
    """Make the store ready: its table or file, its key file, its key check."""
    return await _prepare(args, out, existing=False)


async def migrate(args: Namespace, out: Output) -> int:
    """Bring a store that is there to this version's schema."""
    return await _prepare(args, out, existing=True)


async def _prepare(args: Namespace, out: Output, *, existing: bool) -> int:
    config = load(args.config, out)
    if config.store.partition(":")[0] == "memory":
        raise Problem("the store memory: is inside the site's own process; use another store")
    async with gate(config, existing=existing, writes=True) as opened:
        create = getattr(getattr(opened.store, "inner", opened.store), "create", None)
        if create is not None and not existing:
            create()  # what a server never makes by itself
        # What a site does at its first use: opening makes or migrates, and the key check is written.
        await opened.vault.check_keys()
        out.document({"ready": True, "store": describe(opened.store)})
        out.say(f"ready: {describe(opened.store)}")
    return 0


async def copy(args: Namespace, out: Output) -> int:
    """Copy all records from one store to another."""
    source, target = place(args.source, out), place(args.target, out)
    require_store(source.url)
    if target.url.partition(":")[0] == "memory":
        raise Problem("the target memory: would be gone with this command; name another store")
    origin, destination = source.store(), target.store()
    try:
        if await _opens(target, origin) is False:
            raise Problem(
                f"the secrets of {args.target} do not open what is in the source: give it the same "
                f"[oauthgate] secret{_key_file(source)}"
            )
        with Progress("copying") as progress:
            done = await copy_records(origin, destination, describe(origin), progress)
    except NotCopied as error:
        raise Problem(str(error)) from None
    finally:
        await origin.close()
        await destination.close()
    out.document(
        {
            "from": describe(origin),
            "to": describe(destination),
            "records": done.records,
            "written": done.written,
            "removed": done.removed,
            "differing": done.differing,
            "identical": not done.differing,
        }
    )
    out.say(f"from {describe(origin)} to {describe(destination)}")
    out.say(f"{done.records} records; {done.written} written, {done.removed} removed")
    if done.differing:
        out.note(
            f"{done.differing} records changed meanwhile: stop the site, run the same again (it carries "
            "over only what changed), and start the site with the new store"
        )
        return 1
    out.say("both hold the same records now")
    if target.config is None:
        out.say(f"give the site with the new store the same [oauthgate] secret{_key_file(source)}")
    return 0


def _key_file(source: Place) -> str:
    path = key_file(source.config) if source.config else None
    return f': secret = ["file:{path}"]' if path else ""


async def _opens(target: Place, origin: Store) -> bool | None:
    """Whether the target's own secrets open the source's records; None when that cannot be told."""
    if target.config is None:
        return None
    path = key_file(target.config)
    if path is not None and not path.exists():
        return False  # a fresh key file opens nothing that is there
    try:
        keys = load_keys(target.config)
    except ConfigError as error:
        raise Problem(str(error)) from None
    await origin.open()
    stored = await origin.get(KEY_CHECK)
    if stored is None:
        return None
    try:
        keys.open(KEY_CHECK, stored.value)
    except SealError:
        return False
    return True
