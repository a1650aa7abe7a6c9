"""A visitor who keeps everything that the site sends, to be searched for what should not be in it."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from urllib.parse import unquote

import httpx2

from tests.clicks import Visitor


class Watcher(Visitor):
    """A `Visitor` of `base`, with all that ever came from there: addresses, headers, cookies, bodies."""

    def __init__(self, base: str) -> None:
        super().__init__(base)
        self.seen: list[str] = []
        self.client.event_hooks = {"response": [self._note]}

    def _note(self, answer: httpx2.Response) -> None:
        if not str(answer.request.url).startswith(self.base):
            return
        answer.read()
        headers = [f"{name}: {value}" for name, value in answer.headers.multi_items()]
        sent = [f"{name}: {value}" for name, value in answer.request.headers.multi_items()]
        self.seen += [str(answer.request.url), *headers, *sent, answer.text]

    def assert_unseen(self, secrets: Iterable[str]) -> None:
        """None of `secrets` stands in any of it, plain, percent-encoded, in base64 or in hexadecimal."""
        text = "\n".join(self.seen)
        plain = text + unquote(text)
        hidden = list(secrets)
        assert hidden and min(map(len, hidden)) >= 8, "too short to tell"
        for secret in hidden:
            raw = secret.encode()
            # Of three alignments one is left whatever stands before it.
            inner = [base64.urlsafe_b64encode(raw[skip:])[:-4].decode()[:24] for skip in range(3)]
            for form in (secret, raw.hex(), *inner):
                assert form not in plain
