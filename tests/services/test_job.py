"""The example job: it acts for stored users without a request."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from oauthgate.testing import LocalProvider
from tests.support import site_under_test

JOB = Path(__file__).parents[2] / "examples" / "job" / "post_now_playing.py"


def test_the_job_posts_for_each_user(
    config: dict[str, Any], provider: LocalProvider, tmp_path: Path
) -> None:
    """It posts for users with both services, refreshing an expired token, and passes over the others."""
    with site_under_test("wsgi", config) as site:
        for account in ("ada", "grace"):
            browser = site.browser()
            site.login(browser, "spotify", account)
            if account == "ada":
                site.link(browser, "twitter", account)
    provider.expire_access_tokens()
    lines = [
        "[oauthgate]",
        *(f"{key} = {json.dumps(value)}" for key, value in config["oauthgate"].items()),
    ]
    for name, table in config["providers"].items():
        lines.append(f"[providers.{name}]")
        for key, value in table.items():
            if isinstance(value, dict):
                lines.extend(f"{key}.{inner} = {json.dumps(text)}" for inner, text in value.items())
            else:
                lines.append(f"{key} = {json.dumps(value)}")
    (tmp_path / "oauthgate.toml").write_text("\n".join(lines), encoding="utf-8")
    command = [sys.executable, str(JOB), str(tmp_path / "oauthgate.toml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.endswith("1 posts\n"), done.stdout + done.stderr
    assert "no usable link to twitter" in done.stdout
    (tweet,) = provider.received("tweets")
    assert b"Listening to " in tweet.body
