"""The command line: which commands there are, and what each takes."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import NoReturn

from . import backup, check, keys, revoke, stores, users
from .output import Output

Command = Callable[[argparse.Namespace, Output], Awaitable[int]]


class Parser(argparse.ArgumentParser):
    """argparse repeats what it does not understand, which may be a store's URL with its password."""

    def error(self, message: str) -> NoReturn:
        shown = re.sub(r"(?<=://)\S*@", "…@", message)
        shown = re.sub(r"(password=)[^&\s]*", r"\1…", shown)
        self.print_usage(sys.stderr)
        self.exit(2, f"{self.prog}: {shown}\n")


def make_parser() -> argparse.ArgumentParser:
    """The parser of `oauthgate`."""
    common = Parser(add_help=False)
    common.add_argument(
        "--config", default="oauthgate.toml", metavar="FILE", help="the configuration (oauthgate.toml)"
    )
    common.add_argument("--json", action="store_true", help="print JSON")
    parser = Parser(
        prog="oauthgate",
        description="Look after a site that uses oauthgate. Exit status: 0 fine, 1 a problem was found, "
        "2 the command line was not understood.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(
        name: str, run: Command, text: str, within: argparse._SubParsersAction[Parser] = commands
    ) -> Parser:
        made = within.add_parser(name, help=text, description=text, parents=[common])
        made.set_defaults(run=run)
        return made

    def group(name: str, text: str) -> argparse._SubParsersAction[Parser]:
        made = commands.add_parser(name, help=text, description=text)
        return made.add_subparsers(dest="subcommand", required=True, metavar="COMMAND")

    made = add("check", check.check, "check configuration, store and providers; print redirect URIs")
    made.add_argument("file", nargs="?", metavar="CONFIG", help="the configuration, as --config")
    made.add_argument("--offline", action="store_true", help="ask neither providers nor the site")
    made = add("users", users.users, "list the users")
    made.add_argument("--limit", type=_count, metavar="N", help="stop after N users")
    made = add("user", users.user, "show one user")
    made.add_argument("user", type=_id, metavar="ID")
    made = add("sessions", users.sessions, "list who is signed in")
    made.add_argument("user", nargs="?", type=_id, metavar="USER", help="only this user's")
    made = add("revoke", revoke.revoke, "end a session, all of a user's, or every link of a provider")
    what = made.add_mutually_exclusive_group(required=True)
    what.add_argument("--session", metavar="ID", help="end this session")
    what.add_argument("--user", metavar="ID", help="sign this user out everywhere")
    what.add_argument("--provider", metavar="NAME", help="remove its links, revoke their tokens")
    add("purge", revoke.purge, "drop expired records")

    of_keys = group("keys", "the secrets that seal the records")
    made = add("rotate", keys.rotate, "move every record to the newest secret", of_keys)
    made.add_argument(
        "--vacuum",
        choices=("auto", "always", "never"),
        default="auto",
        help="clean SQLite's free pages afterwards; auto: of a file up to 100 MB",
    )
    add("check", keys.check, "count what each secret still holds", of_keys)

    of_store = group("store", "the store of the records")
    add("init", stores.init, "make the store ready", of_store)
    add("migrate", stores.migrate, "bring a store to this version's schema", of_store)
    made = add("copy", stores.copy, "copy a site's records to another store", of_store)
    for name in ("source", "target"):
        text = "a configuration file, a store's URL, or env:NAME"
        made.add_argument(name, metavar={"source": "FROM", "target": "TO"}[name], help=text)

    made = add("backup", backup.backup, "back up the SQLite database while the site serves")
    made.add_argument("file", metavar="FILE", help="a file that is not there yet")
    return parser


#: A user's id that argparse would take for an option: one in 64 begins with a dash.
_DASHED_ID = re.compile(r"-[A-Za-z0-9_-]{21}")
_TAKES_ID = ("--session", "--user")
_MARK = "id:"


def spelt(arguments: Sequence[str]) -> list[str]:
    """The command line with its ids spelt so that argparse takes none of them for an option."""
    words: list[str] = []
    for word in arguments:
        if words and words[-1] in _TAKES_ID:
            words[-1] += f"={word}"
        else:
            words.append(f"{_MARK}{word}" if _DASHED_ID.fullmatch(word) else word)
    return words


def _id(text: str) -> str:
    return text.removeprefix(_MARK)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError("expected a whole number")
    return int(text)
