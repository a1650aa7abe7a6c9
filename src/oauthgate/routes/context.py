"""What every route works with: the request, its site, and who it comes from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .. import strict_json
from ..answers import is_navigation
from ..cookies import delete_cookie, set_cookie
from ..errors import GateError
from ..flows import FlowCookies
from ..gate import Gate
from ..guard import check_csrf, check_origin, ticket_of
from ..messages import MAX_BODY, Request, Response, parse_parameters, single
from ..providers import Provider
from ..sessions import Ticket
from ..site import Site
from ..visits import Visit


@dataclass
class Context:
    """One request to one of the gate's routes."""

    gate: Gate
    request: Request
    site: Site
    navigation: bool = field(init=False)

    def __post_init__(self) -> None:
        self.navigation = is_navigation(self.request)

    @property
    def flow_cookies(self) -> FlowCookies:
        return FlowCookies(self.gate.keys, self.site.flow_prefix, secure=self.site.secure)

    @property
    def cookie_headers(self) -> list[str]:
        return self.request.values("cookie")

    def page(self, name: str, *, form_action: list[str] | None = None, **values: Any) -> Response:
        """One of the pages, in the visitor's language."""
        return self.gate.page(self.request, self.site, name, form_action=form_action, **values)

    def error(self, error: GateError) -> Response:
        """An error as a page or JSON."""
        return self.gate.error(self.request, self.site, error)

    def ticket(self) -> tuple[Ticket | None, bool]:
        return ticket_of(self.request, self.site, self.gate.api_tokens.read)

    def session_cookie(self, ticket: Ticket) -> str:
        """The `Set-Cookie` value of a session."""
        return set_cookie(
            self.site.cookie_name,
            ticket.value,
            secure=self.site.secure,
            max_age=int(self.gate.config.absolute_timeout),
        )

    def end_session_cookie(self) -> str:
        """The `Set-Cookie` value that removes the session cookie."""
        return delete_cookie(self.site.cookie_name, secure=self.site.secure)

    async def visit(self) -> Visit | None:
        """Who the request comes from; None for an anonymous one. Raises `GateError` 503."""
        ticket, bearer = self.ticket()
        return await self.gate.visit(ticket, bearer) if ticket else None

    async def signed_in(self) -> Visit:
        """The same for a route that needs it. Raises `GateError` 401."""
        visit = await self.visit()
        if visit is None:
            raise GateError("login_required", "sign in first")
        return visit

    async def changing(self) -> tuple[Visit, dict[str, str]]:
        """The visit and the fields of a state-changing request, which is its visitor's own doing.

        Raises `GateError`: 401, 403, 415, 400.
        """
        _, bearer = self.ticket()
        if not bearer:
            check_origin(self.request, self.site, self.gate.config)
        fields = await self.fields()
        visit = await self.signed_in()
        if not visit.bearer:
            check_csrf(self.request, fields, self.gate.keys, visit.session)
        return visit, fields

    async def fields(self) -> dict[str, str]:
        """The single-valued fields of a form or JSON body; an empty body has none."""
        content_type = (self.request.header("content-type") or "").partition(";")[0].strip().lower()
        if not content_type:
            if await self.request.read(MAX_BODY):
                raise GateError("unsupported_media_type", "the body has no content type")
            return {}
        if content_type == "application/json":
            return self._json_fields(await self.request.read(MAX_BODY))
        parameters = await self.request.form_parameters()
        return {name: single(parameters, name) or "" for name in parameters}

    @staticmethod
    def _json_fields(body: bytes) -> dict[str, str]:
        try:
            document = strict_json.loads_object(body or b"{}")
        except strict_json.StrictJSONError as error:
            raise GateError("invalid_request", f"the body: {error}") from None
        fields: dict[str, str] = {}
        for name, value in document.items():
            if isinstance(value, bool):
                value = "1" if value else ""
            if not isinstance(value, str):
                raise GateError("invalid_request", "the body's values must be strings or booleans")
            fields[name] = value
        return fields

    def query(self, name: str) -> str | None:
        """A single-valued query parameter."""
        return single(parse_parameters(self.request.query), name)

    def provider(self, name: str) -> Provider:
        """A configured provider by its exact name. Raises `GateError` 404, without an echo."""
        provider = self.gate.config.providers.get(name)
        if provider is None:
            raise GateError("unknown_provider", "no provider of this name is configured")
        return provider

    def refuse_prefetch(self) -> None:
        """Browsers and link scanners that look ahead must not start or finish a flow."""
        for name in ("sec-purpose", "purpose", "x-purpose", "x-moz"):
            if any("prefetch" in value.lower() for value in self.request.values(name)):
                raise GateError("invalid_request", "this page cannot be fetched ahead of time")
