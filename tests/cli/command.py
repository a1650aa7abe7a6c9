"""Running the command, and looking for secrets in everything that it prints."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DEADLINE = 60.0


@dataclass(frozen=True)
class Done:
    """A command that ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """JSON, one document a line."""
        return [json.loads(line) for line in self.out.splitlines()]


@dataclass
class Operator:
    """Somebody at a shell in `folder`. No output may hold one of `secrets`, in whatever spelling."""

    folder: Path
    secrets: set[str] = field(default_factory=set)

    def run(self, *words: str, status: int = 0, env: Mapping[str, str] | None = None) -> Done:
        """Run `oauthgate` to its end; its exit status must be the given one."""
        process = self.start(*words, env=env)
        out, err = process.communicate(timeout=DEADLINE)
        self.search(out + err)
        assert process.returncode == status, f"{words}: {process.returncode}\n{out}\n{err}"
        assert "Traceback" not in err, err
        return Done(process.returncode, out, err)

    def start(self, *words: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Begin to run it."""
        return subprocess.Popen(
            [sys.executable, "-m", "oauthgate", *words],
            cwd=self.folder,
            env={**os.environ, "PYTHONWARNINGS": "error", **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def search(self, text: str) -> None:
        for secret in self.secrets:
            assert len(secret) >= 8, "too short to be searched for"
            for spelling in spellings(secret):
                assert spelling not in text, f"a secret was printed: {text}"


def spellings(secret: str) -> set[str]:
    raw = secret.encode()
    return {
        secret,
        json.dumps(secret)[1:-1],
        raw.hex(),
        base64.b64encode(raw).decode().rstrip("="),
        base64.urlsafe_b64encode(raw).decode().rstrip("="),
    }


def toml(document: Mapping[str, Any], name: str = "") -> str:
    """A configuration as a file; of what TOML can hold, only what a configuration needs."""
    plain = {key: value for key, value in document.items() if not isinstance(value, dict)}
    tables = {key: value for key, value in document.items() if isinstance(value, dict)}
    text = f"[{name}]\n" if name and (plain or not tables) else ""
    for key, value in plain.items():
        text += f"{key} = {json.dumps(value)}\n"
    for key, value in tables.items():
        # A profile's paths, say, are an inline table.
        if name.startswith("providers."):
            items = ", ".join(f"{each} = {json.dumps(path)}" for each, path in value.items())
            text = text + f"{key} = {{ {items} }}\n"
        else:
            text += toml(value, f"{name}.{key}" if name else key)
    return text


def write(path: Path, document: Mapping[str, Any]) -> Path:
    path.write_text(toml(document), encoding="utf-8")
    path.chmod(0o600)
    return path
