"""The gate: one configuration at work, with everything that it holds.

The adapters (`asgi.py`, `wsgi.py`) ask it who a request to the application comes from (`visit`), and
`router.py` answers the requests under its prefix.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from urllib.parse import urlencode, urlsplit

from . import sessions
from .access_seats import Admission
from .accounts import Accounts
from .answers import COMMON, error_body, is_navigation, json_answer, redirect, wants_page
from .api_hosts import api_origins
from .api_tokens import ApiTokens
from .clients import SyncService
from .config import Config
from .errors import ConfigError, GateError, NotLinked, RefreshFailed
from .hooks import Hook, Hooks, load_hooks
from .io import IO
from .keyfile import load_keys
from .link_auth import CurrentUser
from .messages import Request, Response
from .outbound import Outbound
from .pages import Pages
from .protocols.discovery import Directory
from .providers import Provider
from .records import Session, User
from .refresh import Refresher
from .seal import Keys
from .services import C, Services, Source
from .sessions import SessionPolicy, Ticket
from .site import Site, configured_site, local_site
from .stores import Store, make_store
from .targets import safe_target
from .vault import CACHE_SIZE, Opened, Vault
from .visits import Place, Visit, Visitor, link_page, page_target

log = logging.getLogger("oauthgate")

#: Seconds after which a visit is proved anew, whatever says that nothing changed.
RECALL = 10.0

_Known = OrderedDict[str, tuple[Visit, Opened, float]]


class Gate:
    """One configuration over one `IO`. Opens nothing before its first use."""

    def __init__(
        self,
        config: Config,
        io: IO,
        *,
        hooks: Mapping[str, Hook] | None = None,
        store: Store | None = None,
        keys: Keys | None = None,
    ) -> None:
        self.config = config
        self.io = io
        try:
            self.store = store or make_store(config.store, blocking=io.blocking)
            self.keys = keys or load_keys(config)
            self.hooks = Hooks(io, {**load_hooks(config.hooks, "[hooks]"), **(hooks or {})})
        except ConfigError as error:
            raise ConfigError(f"{config.source}: {error}") from None
        self.vault = Vault(self.store, self.keys, config.near_cache)
        self.policy = SessionPolicy(config.idle_timeout, config.absolute_timeout, config.max_sessions)
        self.api_tokens = ApiTokens(config, self.keys, self.policy)
        access = config.access
        admission = (
            Admission(self.vault, io, self.policy, access.max_users)
            if access.max_users is not None
            else None
        )
        self.accounts = Accounts(self.vault, io, self.policy, self.hooks, access.rules, admission)
        self.outbound = Outbound(io)
        self.directory = Directory(io, self.outbound)
        self.refresher = Refresher(
            io, self.vault, self.accounts, self.outbound, self.directory, self.hooks
        )
        try:
            self.pages = Pages(config.templates or None, config.prefix)
        except NotADirectoryError:
            raise ConfigError(
                f"{config.source}: [oauthgate] templates: {config.templates} is not a folder"
            ) from None
        self._site = configured_site(config)
        self.place = Place(
            self.keys, config.providers, config.prefix, self._site.path if self._site else None
        )
        #: Of a browser that changed something a moment ago: it is not answered from the near-cache, so
        #: that it sees its own change whichever machine answers.
        self.after_change = f"{config.cookie}-changed="
        # By ticket, for cookies and for bearer tokens.
        self._known: tuple[_Known, _Known] = (OrderedDict(), OrderedDict())
        io.trust(_configured_hosts(config))

    def __repr__(self) -> str:
        return f"Gate({self.config!r})"

    # -- requests to the application

    def recall(self, ticket: str, bearer: bool) -> Visit | None:
        """The visit that a ticket proved a moment ago, if nothing changed since; asks nobody.

        Only a visit that was proved is ever recalled, never that there was none.
        """
        known = self._known[bearer].get(ticket)
        if known is None:
            return None
        visit, opened, until = known
        return visit if time.time() < until and self.vault.holds(opened) else None

    async def visit(self, ticket: Ticket, bearer: bool) -> Visit | None:
        """The visit that a ticket proves: one read of the store, and no write but a rare one.

        None for a session that is unknown or over. Raises `GateError` 503 when the store cannot tell.
        """
        if ticket.expires_at <= time.time():
            return None
        found = await self.vault.opened(ticket.user_id)
        if found is None:
            return None
        now = time.time()
        text = ticket.value
        known = self._known[bearer].get(text)
        if known is not None and known[1] is found and self.policy.live(known[0].session, now):
            visit = known[0]  # the same bytes as when it was proved
        else:
            held = sessions.find(self.keys, found.user, ticket, self.policy, now)
            if held is None or not self.config.access.rules.stands(found.user, held):
                return None
            visit = Visit(found.user, found.version, held, bearer)
        touch_at = visit.session.last_seen + self.policy.touch_after
        if now > touch_at:
            await self.accounts.touch(visit.user, visit.version, visit.session)
        until = min(self.policy.expires_at(visit.session), touch_at, now + RECALL, ticket.expires_at)
        self._remember(bearer, text, (visit, found, until))
        return visit

    def _remember(self, bearer: bool, ticket: str, known: tuple[Visit, Opened, float]) -> None:
        held = self._known[bearer]
        held[ticket] = known
        if len(held) > CACHE_SIZE:
            # Another thread may have emptied it meanwhile.
            with contextlib.suppress(KeyError):
                held.popitem(last=False)

    def visitor(
        self, visit: Visit | None, mount: str = "", path: str = "/", query: bytes | str = ""
    ) -> Visitor:
        """What a handler on the page at `path` (decoded) and `query` (raw) sees of a visit."""
        return Visitor(self.place, visit, mount, path, query)

    def csrf_token(self, visit: Visit) -> str:
        return sessions.csrf_token(self.keys, visit.session)

    def site(self, scheme: str, host: str | None, mount: str) -> Site:
        """Where this site is. Raises `GateError` 421 for a host that is not served."""
        return self._site or local_site(self.config, scheme, host, mount)

    def cookie_name(self, scheme: str) -> str:
        """The session cookie's name; where no `base_url` is configured the request's scheme decides."""
        secure = self._site.secure if self._site else scheme in ("https", "wss")
        return f"__Host-{self.config.cookie}" if secure else self.config.cookie

    def own_origin(self, origin: str, scheme: str, host: str | None) -> bool:
        """Whether a WebSocket handshake of this origin may carry the visitor's identity.

        `scheme` and `host` are the handshake's own, for a site without a configured `base_url`.
        """
        if origin in self.config.allowed_origins:
            return True
        try:
            page = "https" if scheme in ("wss", "https") else "http"
            return origin == self.site(page, host, "").origin
        except GateError:
            return False

    def source(
        self,
        make: type[C],
        twin: Callable[[User | None, Session | None], Services[SyncService]] | None = None,
    ) -> Source[C]:
        """What makes the services of a user of this gate."""
        return Source(make, self.io, self.refresher, self.config.providers, self._standing, twin)

    def _standing(self, user: User, session: Session) -> CurrentUser:
        """For what outlives a request, as an open socket does: signing out must end its clients too."""

        async def current() -> User | None:
            found = await self.vault.user(user.id)
            if found is None:
                return None
            for held in found[0].sessions:
                if held.id == session.id and self.policy.live(held, time.time()):
                    return found[0] if self.config.access.rules.stands(found[0], held) else None
            return None

        return current

    def answer_for(
        self, request: Request, mount: str, error: NotLinked | GateError | RefreshFailed
    ) -> Response:
        """The answer for one of our exceptions that a handler of the application let pass."""
        answer = self._answer_for(request, mount, error)
        if request.method == "HEAD":
            answer.body = b""  # not every server takes it away, and it would begin the next answer
        return answer

    def _answer_for(
        self, request: Request, mount: str, error: NotLinked | GateError | RefreshFailed
    ) -> Response:
        try:
            site = self.site(request.scheme, request.header("host"), mount)
            if isinstance(error, NotLinked):
                return self._not_linked(request, site, error)
            if isinstance(error, RefreshFailed):
                error = GateError("provider_unavailable", str(error))
            if error.code == "login_required":
                return self._not_signed_in(request, site, error)
            return self.error(request, site, error)
        except GateError as refusal:
            return self.error(request, None, refusal)

    def _not_signed_in(self, request: Request, site: Site, error: GateError) -> Response:
        """What gets somebody signed in: for people the page with all ways to do so, which comes back."""
        query = urlencode({"next": _current_target(request, site)})
        url = f"{site.url('/')}?{query}"
        if is_navigation(request):
            return redirect(url)
        return json_answer(401, error_body(error, url=url))

    def _not_linked(self, request: Request, site: Site, error: NotLinked) -> Response:
        """What gets a missing link made: a redirect for people, JSON for programs."""
        target = _current_target(request, site)
        url = link_page(site, self.keys, error.provider, target, error.reason, error.scope)
        if is_navigation(request):
            return redirect(url)
        return json_answer(
            401,
            {
                "error": "link_required",
                "error_description": f"link {error.provider} first, at the given url",
                "provider": error.provider,
                "url": url,
                "reason": error.reason,
                **({"scope": list(error.scope)} if error.scope else {}),
            },
        )

    # -- pages and errors

    def page(
        self,
        request: Request,
        site: Site,
        name: str,
        *,
        status: int = 200,
        form_action: list[str] | None = None,
        home: str | None = None,
        **values: object,
    ) -> Response:
        """One of the pages, in the visitor's language; `home` is where it leads back to."""
        page = self.pages.render(
            name,
            accept_language=",".join(request.values("accept-language")),
            form_action=form_action or (),
            site=site.host,
            prefix=f"{site.path}{site.prefix}",
            home_url=home or site.home,
            status=status,
            **values,
        )
        return Response(status, [*COMMON, *page.headers], page.html.encode("utf-8", "replace"))

    def error(self, request: Request, site: Site | None, error: GateError) -> Response:
        """An error as a page or JSON. Both name cause and cure, and nothing that came from outside."""
        log_at = logging.WARNING if error.status >= 500 else logging.INFO
        log.log(log_at, "answered %d: %s", error.status, error)
        headers = [] if error.retry_after is None else [("Retry-After", str(error.retry_after))]
        if site is not None and wants_page(request):
            retry = None
            if error.provider in self.config.providers:
                query = "" if error.target is None else f"?{urlencode({'next': error.target})}"
                retry = f"{site.url(f'/{error.provider}/link')}{query}"
            answer = self.page(
                request,
                site,
                "error",
                status=error.status,
                home=None if error.target is None else site.target(error.target),
                code=error.code,
                cause=error.description if error.code == "refused" else None,
                cure=None,
                retry_url=retry,
            )
        else:
            answer = json_answer(error.status, error_body(error))
        answer.headers.extend(headers)
        return answer

    async def close(self) -> None:
        """Finish what is under way and let go of store and connections; both may be used again."""
        await self.io.close()
        await self.store.close()


def _current_target(request: Request, site: Site) -> str:
    """The page to come back to: the one asked for, or the one a form was sent from."""
    if request.method in ("GET", "HEAD"):
        return page_target(request.path, request.query, site.prefix)
    for referrer in request.values("referer"):
        if referrer.startswith(f"{site.origin}{site.path}/"):
            parts = urlsplit(referrer.removeprefix(f"{site.origin}{site.path}"))
            query = f"?{parts.query}" if parts.query else ""
            return safe_target(parts.path + query, site.prefix)
    return safe_target(None, site.prefix)


def _configured_hosts(config: Config) -> frozenset[str]:
    """Every host that the operator wrote down: those may be on a private network."""
    hosts: set[str] = set()
    for provider in config.providers.values():
        hosts.update(host for _, host, _ in api_origins(provider))
        for url in _urls(provider):
            hosts.add((urlsplit(url).hostname or "").lower())
    return frozenset(host for host in hosts if host)


def _urls(provider: Provider) -> list[str]:
    return [
        url
        for url in (
            provider.issuer,
            provider.authorization_endpoint,
            provider.token_endpoint,
            provider.refresh_endpoint,
            provider.request_token_url,
            provider.userinfo_endpoint,
            provider.jwks_uri,
            provider.revocation_endpoint,
            provider.introspection_endpoint,
            provider.token_info.url if provider.token_info else "",
            provider.end_session_endpoint,
            provider.api_base_url,
        )
        if url
    ]
