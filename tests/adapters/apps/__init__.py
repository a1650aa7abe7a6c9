"""Applications that the adapter tests start under real servers, one module each.

All of them take the gate's configuration from the file that `OAUTHGATE_TEST_CONFIG` names, and leave
marks for the test in the folder `OAUTHGATE_TEST_FOLDER`. They share these routes: `/who` names the
visitor, `/call/<service>/<path>` calls a service and passes its answer on, `/process` tells pid and
threads.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

from oauthgate import Visitor


def config(variable: str = "OAUTHGATE_TEST_CONFIG") -> str:
    """The path of the configuration that this process was given."""
    return os.environ[variable]


def mark(name: str, text: str = "") -> None:
    """Leave a file for the test to see."""
    (Path(os.environ["OAUTHGATE_TEST_FOLDER"]) / name).write_text(text)


def marked(name: str) -> bool:
    """Whether the test has left this file for the application to see."""
    return (Path(os.environ["OAUTHGATE_TEST_FOLDER"]) / name).exists()


def visitor(oauth: Visitor, services: Any) -> dict[str, Any]:
    """What a handler can see of its visitor, as JSON."""
    return {
        "user_id": oauth.user_id,
        "services": sorted(services),
        "links": [f"{link.provider}:{link.account_id}" for link in oauth.links],
        "login_url": oauth.login_url("spotify"),
        "account_url": oauth.account_url,
    }


def process() -> dict[str, Any]:
    """This process: its id, the names of its threads, and how many the system counts."""
    return {
        "pid": os.getpid(),
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "tasks": len(list(Path("/proc/self/task").iterdir())),
    }
