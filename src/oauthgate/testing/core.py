"""The settings, the state and the clock of a local provider, without any route.

Owns: `Core`, which every endpoint gets as its first argument. `provider.LocalProvider` adds the
routes. Everything that changes is guarded by `lock`; endpoints run while it is held.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from . import jose
from .faults import Fault, Faults
from .messages import Message
from .models import DEFAULT_ACCOUNTS, Account, Client
from .state import (
    AccessToken,
    Code,
    OAuth1Token,
    Pending,
    RefreshToken,
    RequestToken,
    Session,
    Shelf,
    Tweet,
)

DEFAULT_SCOPES = ("openid", "profile", "email", "offline_access", "player", "tweets")
DEFAULT_API_SCOPES = {"player": "player", "tweets": "tweets"}
SIGNATURE_METHODS = ("HMAC-SHA1", "HMAC-SHA256", "RSA-SHA1", "PLAINTEXT")
ID_TOKEN_ALGORITHMS = (*jose.ASYMMETRIC, "HS256")
PAGE_LIFETIME = 600  # seconds a sign-in page, a request token and an open logout page live
LOG_SIZE = 1000


class Core:
    """What the endpoints share; see `LocalProvider` for the meaning of the settings."""

    def __init__(
        self,
        *,
        name: str = "local",
        title: str | None = None,
        clients: Sequence[Client] = (),
        accounts: Sequence[Account] = DEFAULT_ACCOUNTS,
        issuer: str | None = None,
        access_token_lifetime: int = 3600,
        refresh_token_lifetime: int | None = None,
        code_lifetime: int = 60,
        refresh_tokens: str = "always",
        rotate_refresh_tokens: bool = True,
        reuse_revokes_family: bool = True,
        refresh_reuse_grace: float = 0,
        pkce_required: bool = True,
        iss_parameter: bool = True,
        scopes_supported: Sequence[str] = DEFAULT_SCOPES,
        default_scope: Sequence[str] = (),
        api_scopes: Mapping[str, str] | None = None,
        id_token_signed_response_alg: str = "RS256",  # noqa: S107 (an algorithm)
        claims_in_id_token: bool = False,
        signature_methods: Sequence[str] = SIGNATURE_METHODS,
        timestamp_window: int = 300,
        remember_consent: bool = False,
        auto_approve: str | None = None,
        dpop: bool = True,
        dpop_required: bool = False,
        dpop_nonce_required: Sequence[str] = (),
        introspect_any: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if id_token_signed_response_alg not in ID_TOKEN_ALGORITHMS:
            known = ", ".join(ID_TOKEN_ALGORITHMS)
            raise ValueError(f"id_token_signed_response_alg is not one of {known}")
        if refresh_tokens not in ("always", "offline_access", "never"):
            raise ValueError("refresh_tokens is not one of always, offline_access, never")
        self.name = name
        self.title = title or name.title()
        self.clients = {client.client_id: client for client in clients}
        self.accounts = {account.id: account for account in accounts}
        self.issuer = issuer.rstrip("/") if issuer else None
        self.access_token_lifetime = access_token_lifetime
        self.refresh_token_lifetime = refresh_token_lifetime
        self.code_lifetime = code_lifetime
        self.refresh_tokens = refresh_tokens
        self.rotate_refresh_tokens = rotate_refresh_tokens
        self.reuse_revokes_family = reuse_revokes_family
        self.refresh_reuse_grace = refresh_reuse_grace
        self.pkce_required = pkce_required
        self.iss_parameter = iss_parameter
        self.scopes_supported = tuple(scopes_supported)
        self.default_scope = tuple(default_scope)
        self.withheld_scope: set[str] = set()
        self.api_scopes = dict(DEFAULT_API_SCOPES if api_scopes is None else api_scopes)
        self.id_token_signed_response_alg = id_token_signed_response_alg
        self.claims_in_id_token = claims_in_id_token
        self.signature_methods = tuple(signature_methods)
        self.timestamp_window = timestamp_window
        self.remember_consent = remember_consent
        self.auto_approve = auto_approve
        self.dpop = dpop
        self.dpop_required = dpop_required
        self.dpop_nonce_required = tuple(dpop_nonce_required)
        self.introspect_any = introspect_any
        self.dpop_scheme = "DPoP"
        self.dpop_nonces = {server: [self.new_token(16)] for server in ("authorization", "resource")}
        self.clock = clock
        self.faults = Faults()
        self.keys = jose.Keys()
        self.lock = threading.RLock()
        self.count: Counter[str] = Counter()
        self._offset = 0.0
        self._log: deque[Message] = deque(maxlen=LOG_SIZE)
        # Cookies ignore ports: the random part keeps several providers on one host apart.
        self.session_cookie = f"local_provider_{secrets.token_hex(4)}"
        self.pending: Shelf[Pending] = Shelf(10_000)
        self.sessions: Shelf[Session] = Shelf()
        self.consents: dict[tuple[str, str], set[str]] = {}
        self.codes: Shelf[Code] = Shelf()
        self.access_tokens: Shelf[AccessToken] = Shelf()
        self.refresh_store: Shelf[RefreshToken] = Shelf()
        self.request_tokens: Shelf[RequestToken] = Shelf()
        self.oauth1_tokens: Shelf[OAuth1Token] = Shelf()
        self.seen: Shelf[float] = Shelf()  # nonces and assertion ids, against replay
        self.tweets: Shelf[Tweet] = Shelf()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} at {self.issuer}>"

    # What a test looks at and turns.

    @property
    def log(self) -> list[Message]:
        """Return the last requests received (at most 1,000), oldest first."""
        with self.lock:
            return list(self._log)

    def received(self, endpoint: str) -> list[Message]:
        """Return the last requests that one endpoint received, oldest first."""
        return [message for message in self.log if message.endpoint == endpoint]

    def now(self) -> float:
        return self.clock() + self._offset

    def advance(self, seconds: float) -> None:
        """Move the provider's clock forward."""
        with self.lock:
            self._offset += seconds

    def add_client(self, client: Client) -> None:
        """Register a client, or replace the one with the same `client_id`."""
        with self.lock:
            self.clients[client.client_id] = client

    def expire_access_tokens(self) -> None:
        """Let every OAuth 2 access token end now; refresh tokens go on working."""
        with self.lock:
            for token in self.access_tokens.values():
                token.expires_at = self.now()

    def revoke_all(self) -> None:
        """Withdraw everything ever granted, OAuth 1.0a tokens included."""
        with self.lock:
            for access in self.access_tokens.values():
                access.grant.revoked = True
            for refresh in self.refresh_store.values():
                refresh.grant.revoked = True
            for code in self.codes.values():
                code.grant.revoked = True
            self.oauth1_tokens.clear()
            self.request_tokens.clear()

    def rotate_keys(self, *, keep_old: bool = False) -> None:
        """Sign with new keys from now on; without `keep_old` the former ones are unpublished."""
        with self.lock:
            for alg in self.id_token_algorithms():
                if alg in jose.ASYMMETRIC:
                    self.keys.all(alg)
            self.keys.rotate(keep_old=keep_old)

    def rotate_dpop_nonces(self, *, keep_old: bool = False) -> None:
        """Give out new DPoP nonces from now on; without `keep_old` the former ones are refused."""
        with self.lock:
            for nonces in self.dpop_nonces.values():
                del nonces[: -1 if keep_old else None]
                nonces.append(self.new_token(16))

    def clear(self) -> None:
        """Forget everything but settings, clients, accounts and keys; heal every fault."""
        with self.lock:
            for shelf in (self.pending, self.sessions, self.codes, self.access_tokens):
                shelf.clear()
            for more in (self.refresh_store, self.request_tokens, self.oauth1_tokens, self.seen):
                more.clear()
            self.tweets.clear()
            self.consents.clear()
            self.withheld_scope.clear()
            self.count.clear()
            self._log.clear()
            self._offset = 0.0
            self.faults.clear()

    # What the endpoints need.

    def arrive(self, message: Message) -> Fault | None:
        """Count and log a request and say what is to go wrong with it."""
        with self.lock:
            self.count[message.endpoint] += 1
            self._log.append(message)
        return self.faults.take(message.endpoint)

    def base(self, message: Message) -> str:
        """Return the issuer; before one is set, the address the request was sent to."""
        return self.issuer or message.root

    def account(self, wanted: str | None) -> Account | None:
        """Find an account by id, username or e-mail address."""
        for account in self.accounts.values():
            if wanted and wanted in (account.id, account.username, account.email):
                return account
        return None

    def new_token(self, size: int = 32) -> str:
        return secrets.token_urlsafe(size)

    def replayed(self, key: str) -> bool:
        """Remember a nonce or assertion id; True when it was seen before."""
        if key in self.seen:
            return True
        self.seen.put(key, self.now())
        return False

    def id_token_algorithms(self) -> list[str]:
        """Return every algorithm some client's tokens are signed with, the default first."""
        found = {self.id_token_signed_response_alg: None}
        for client in self.clients.values():
            for alg in (client.id_token_signed_response_alg, client.userinfo_signed_response_alg):
                if alg:
                    found[alg] = None
        return list(found)

    def picture(self, account: Account, base: str) -> str:
        return account.picture or f"{base}/pictures/{account.id}.svg"

    def profile(self, account: Account, base: str) -> dict[str, Any]:
        """Return what the API tells about an account."""
        return {
            "id": account.id,
            "username": account.username,
            "name": account.name,
            "email": account.email,
            "email_verified": account.email_verified if account.email else False,
            "picture": self.picture(account, base),
            **account.extra,
        }
