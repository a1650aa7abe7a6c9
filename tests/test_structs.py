"""The first requests of a threaded server: msgspec's descriptions of structs must be there already."""

from __future__ import annotations

import subprocess
import sys

import pytest

#: A process of its own, because a struct is described only once; its threads change places all the time.
PROGRAM = """
import sys, threading
from oauthgate import flows, records
from oauthgate.config import Config
from oauthgate.seal import Keys

together = threading.Barrier(12)
token = records.Token(access_token="a")
link = records.Link(
    provider="p", identity="i", account_id="1", profile=records.Profile(id="1"), token=token
)
user = records.encode(records.User(id="u", created=1.0, links=[link]))
cookies = flows.FlowCookies(Keys([b"s" * 32]), "flow-", secure=False)
flow = flows.Flow(
    provider="p", identity="i", state="s", expires_at=9, purpose="login", redirect_uri="http://a"
)
cookie = cookies.start(flow, [], cross_site_post=False)[0].partition(";")[0]
config = {
    "oauthgate": {"base_url": "http://localhost"},
    "providers": {"github": {"preset": "github", "client_id": "c", "client_secret": "s"}},
}

def work():
    together.wait()
    try:
        WORK
    except BaseException as error:
        wrong.append(error)

wrong = []
sys.setswitchinterval(1e-6)
threads = [threading.Thread(target=work) for _ in range(12)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert not wrong, wrong
"""


@pytest.mark.parametrize(
    "work",
    [
        "assert records.decode(records.User, user).links == [link]",
        "assert cookies.find('s', [cookie], 1.0) == flow",
        "assert Config.load(config).providers['github'].client_id == 'c'",
    ],
    ids=["user", "flow", "config"],
)
def test_twelve_threads_decode_first(work: str) -> None:
    """Without `structs.py` the process ended with SIGSEGV in 56 of 60 runs."""
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM.replace("WORK", work)],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, (done.returncode, done.stderr)
