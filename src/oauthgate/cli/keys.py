"""`keys rotate` and `keys check`: moving all to the newest secret, and what an old one holds.

The order of a rotation is in docs/operating.md.
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from ..rotation import KeyReport, KeyUse, examine
from ..rotation import rotate as rotate_records
from ..stores.sqlite_backup import vacuum
from .opening import database, gate, load
from .output import Output, Problem, when
from .progress import Progress

#: Bytes of a file that is written anew while the site's writers wait, which they do for 5 seconds.
VACUUM_UP_TO = 100 * 1024 * 1024


async def rotate(args: Namespace, out: Output) -> int:
    """Reseal and re-hash everything with the first secret."""
    config = load(args.config, out)
    async with gate(config, writes=True) as opened:
        if not opened.keys.several:
            raise Problem(
                "[oauthgate] secret: only one is configured, so there is nothing to move; put the new "
                "one in front of it, restart the site, and run this again"
            )
        with Progress("moving to the newest secret") as progress:
            done = await rotate_records(opened.vault, opened.io, progress)
        report = await examine(opened.vault, opened.policy)
    # After the last connection of ours is closed: what was replaced is still in the file's free pages.
    cleaned = None
    path = database(config.store)
    if path is not None and _is_vacuumed(path, args.vacuum):
        cleaned = vacuum(path)
    finished = done.settled and not done.unreadable and not report.damaged and not report.unknown
    out.document(
        {
            "finished": finished,
            "records": done.records,
            "resealed": done.resealed,
            "rehashed": done.rehashed,
            "unreadable": done.unreadable,
            "contested": [list(pair) for pair in done.contested],
            "vacuumed": cleaned,
            **_document(report),
        }
    )
    out.say(
        f"{done.records} records: {done.resealed} sealed anew, {done.rehashed} moved to the new hash"
    )
    for one, other in done.contested:
        out.note(
            f"the users {one} and {other} both own one account, which was signed in with before "
            "every process had the newest secret: look at both (oauthgate user ID), have one of them "
            "unlink it, and run this again"
        )
    if not done.settled and not done.contested:
        out.note(
            "not finished: something goes on sealing with an older secret; restart every process of the "
            "site with the newest secret first, and run this again"
        )
    if done.unreadable:
        out.note(
            f"{done.unreadable} records open with no configured secret: put theirs back into the list, "
            "or restore them from a backup; see oauthgate keys check"
        )
    if path is not None and not cleaned:
        out.note(
            "what was replaced may still be in free pages of the file: run this again with --vacuum "
            "always, at a time when the site has little to do"
        )
    _explain(report, out)
    return 0 if finished else 1


async def check(args: Namespace, out: Output) -> int:
    """Count what each secret still holds."""
    async with gate(load(args.config, out)) as opened:
        await opened.vault.check_keys()
        with Progress("looking") as progress:
            report = await examine(opened.vault, opened.policy, progress)
    out.document(_document(report))
    _explain(report, out)
    return 1 if report.unknown or report.damaged else 0


def _is_vacuumed(path: Path, wanted: str) -> bool:
    return wanted == "always" or (wanted == "auto" and path.stat().st_size <= VACUUM_UP_TO)


def _document(report: KeyReport) -> dict[str, object]:
    return {
        "secrets": [
            {
                "position": use.position,
                "key_id": use.key_id.hex(),
                "records": dict(sorted(use.records.items())),
                "hashes": dict(sorted(use.hashes.items())),
                "sessions": use.sessions,
                "last_session_ends": use.last_session,
                "removable": use.removable,
            }
            for use in report.keys
        ],
        "unknown_keys": dict(sorted(report.unknown.items())),
        "damaged": report.damaged,
    }


def _explain(report: KeyReport, out: Output) -> None:
    for use in report.keys:
        out.say(f"secret {use.position} (key id {use.key_id.hex()}): {_holds(use)}")
        if use.position > 1:
            out.say(f"  {_advice(use)}")
    for key_id, count in sorted(report.unknown.items()):
        out.note(
            f"{count} records are sealed with the key id {key_id}, which is not configured: put its "
            "secret back into [oauthgate] secret"
        )
    if report.damaged:
        out.note(f"{report.damaged} records are damaged: restore them from a backup")


def _holds(use: KeyUse) -> str:
    records = ", ".join(f"{count} {kind}" for kind, count in sorted(use.records.items()))
    hashes = "".join(f", {count} {kind} by its hash" for kind, count in sorted(use.hashes.items()))
    return f"seals {records or 'nothing'}{hashes}, {use.sessions} session{'s' * (use.sessions != 1)}"


def _advice(use: KeyUse) -> str:
    if not use.removable:
        return "keep it until this has finished: oauthgate keys rotate"
    if use.sessions and use.last_session:
        return (
            f"it may go; {use.sessions} session{'s' * (use.sessions != 1)} would be signed out, the "
            f"last of them ends by itself by {when(use.last_session)}"
        )
    return "it may go"
