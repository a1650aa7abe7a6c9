"""Databases that released versions wrote are opened by this one, as they are."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest

import oauthgate
from oauthgate.config import Config
from oauthgate.errors import GateError
from oauthgate.gate import Gate
from oauthgate.io_blocking import BlockingIO
from oauthgate.records import SCHEMA, Lease, ProviderSession, UsedFlow, User, decode, encode
from oauthgate.stepping import iterate, run

from .fixtures.write import FOLDER, config, links

FILES = sorted(FOLDER.glob("gate-*.db"))


def test_this_version_has_one() -> None:
    """A release writes its file (`python -m tests.fixtures.write`)."""
    assert FOLDER / f"gate-{oauthgate.__version__}.db" in FILES


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_database_of_a_release(file: Path, tmp_path: Path) -> None:
    """Every record opens with all that it held, its owner is found, and it can be written again."""
    path = tmp_path / "gate.db"
    shutil.copy(file, path)
    gate = Gate(Config.load(config(path)), BlockingIO())
    (user,) = iterate(gate.vault.users())
    assert [msgspec.structs.replace(link, linked_at=0.0) for link in user.links] == [
        msgspec.structs.replace(link, linked_at=0.0, default=user.links[number].default)
        for number, link in enumerate(links())
    ]
    (session,) = user.sessions
    assert (session.provider, session.account_id, session.sid) == ("corp", "ada-1", "sid-1")
    used, _ = run(gate.vault.get(UsedFlow, "flow-used/one")) or (None, 0)
    assert used == UsedFlow(done=True, user_id=user.id, account_id="1001", target="/a")
    held, _ = run(gate.vault.get(ProviderSession, "sid/one")) or (None, 0)
    assert held == ProviderSession(user_id=user.id)
    lease, _ = run(gate.vault.get(Lease, "lease/one")) or (None, 0)
    assert lease == Lease(holder="process-1")
    # The same account again is the same person, whose document is then written by this version.
    _, again, _ = run(gate.accounts.login(links()[1], old=None, sid=""))
    assert again.id == user.id and len(again.sessions) == 2
    run(gate.close())


def test_a_record_of_a_newer_version_is_refused() -> None:
    """It is neither half understood nor damaged."""
    newer = encode(User(schema=SCHEMA + 1, id="u", created=1.0))
    with pytest.raises(GateError, match="newer oauthgate") as refused:
        decode(User, newer)
    assert refused.value.code == "record_unreadable"
