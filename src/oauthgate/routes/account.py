"""What a user can do with what is linked: the account page, and unlinking."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlencode

from ..answers import json_answer, redirect
from ..errors import GateError
from ..messages import Response
from ..providers import Provider
from ..records import Link
from ..revoking import revoke
from ..targets import safe_target
from ..visits import Visit
from .context import Context

#: Characters of a label.
MAX_LABEL = 40


@dataclass(frozen=True, slots=True)
class LinkRow:
    """A link as the account page shows it."""

    provider: str
    title: str
    account_id: str
    label: str
    name: str | None
    username: str | None
    email: str | None
    picture: str | None
    scope: list[str]
    state: str
    unlink_url: str
    describe_url: str
    linked_at: float
    is_default: bool


async def account(context: Context) -> Response:
    """`GET /`: what is linked, where one is signed in, and buttons to change it."""
    gate, site = context.gate, context.site
    visit = await context.visit()
    if visit is None:
        login = [
            {"name": name, "title": provider.title, "login_url": _login_url(context, name)}
            for name, provider in gate.config.providers.items()
        ]
        return context.page("account_anonymous", login=login)
    current = visit.session.id
    return context.page(
        "account",
        form_action=["https:", *(["http:"] if not site.secure else [])],
        user_id=visit.user.id,
        csrf_token=gate.csrf_token(visit),
        links=[_row(context, link) for link in visit.user.links],
        can_link=[
            {"name": name, "title": provider.title, "link_url": site.url(f"/{name}/link")}
            for name, provider in gate.config.providers.items()
        ],
        sessions=[
            {
                "id": held.id,
                "created": held.created,
                "last_seen": held.last_seen,
                "current": held.id == current,
                "provider": _title(context, held.provider),
                "revoke_url": site.url("/logout"),
            }
            for held in visit.user.sessions
        ],
        logout_url=site.url("/logout"),
        here=f"{site.prefix}/",
        message=context.query("message") or "",
    )


def _login_url(context: Context, name: str) -> str:
    here = f"{context.site.prefix}/"
    # Whoever a page of the application sent here goes back there.
    query = urlencode({"next": safe_target(context.query("next") or here, context.site.prefix)})
    return f"{context.site.url(f'/{name}/login')}?{query}"


def _title(context: Context, name: str) -> str:
    provider = context.gate.config.providers.get(name)
    return provider.title if provider else name


def _row(context: Context, link: Link) -> LinkRow:
    return LinkRow(
        provider=link.provider,
        title=_title(context, link.provider),
        account_id=link.account_id,
        label=link.label,
        name=link.profile.name,
        username=link.profile.username,
        email=link.profile.email,
        picture=link.profile.picture,
        scope=list(link.scope),
        state=link.state,
        unlink_url=context.site.url(f"/{link.provider}/unlink"),
        describe_url=context.site.url(f"/{link.provider}/account"),
        linked_at=link.linked_at,
        is_default=link.default,
    )


async def unlink(context: Context, name: str) -> Response:
    """`POST /{provider}/unlink`: delete the link, revoke its token, and say what really happened."""
    provider = context.provider(name)
    visit, fields = await context.changing()
    link = _chosen(visit, provider, fields.get("account_id"))
    # Deleted first: a provider that is slow or down must not keep a link alive here.
    removed = await context.gate.accounts.detach(visit.user.id, name, link.account_id)
    gate = context.gate
    revoked = await revoke(gate.outbound, gate.directory, provider, removed or link)
    if context.navigation:
        key = {True: "unlinked", False: "unlinked_revoke_failed", None: "unlinked_no_revocation"}
        query = urlencode({"message": key[revoked]})
        return redirect(f"{context.site.url('/')}?{query}")
    return json_answer(200, {"unlinked": True, "revoked": revoked})


async def describe(context: Context, name: str) -> Response:
    """`POST /{provider}/account`: give an account a label, or make it the provider's default one."""
    provider = context.provider(name)
    visit, fields = await context.changing()
    link = _chosen(visit, provider, fields.get("account_id"))
    label = fields.get("label")
    if label is not None:
        label = label.strip()
        if len(label) > MAX_LABEL or not label.isprintable() or ":" in label:
            raise GateError(
                "invalid_request", f"a label has at most {MAX_LABEL} printable characters and no colon"
            )
        others = [held for held in visit.user.links_of(name) if held.account_id != link.account_id]
        if label and any(label in (held.label, held.account_id) for held in others):
            raise GateError("invalid_request", "another account of this provider has this label")
    default = None if fields.get("default") is None else fields["default"] not in ("", "0")
    user = await context.gate.accounts.describe(
        visit.user.id, name, link.account_id, label=label, default=default
    )
    if user is None:
        raise GateError("not_found", f"no such account of {provider.title} is linked")
    if context.navigation:
        return redirect(context.site.url("/"))
    changed = user.link(name, link.account_id) or link
    return json_answer(
        200, {"account_id": changed.account_id, "label": changed.label, "default": changed.default}
    )


def _chosen(visit: Visit, provider: Provider, account_id: str | None) -> Link:
    links = visit.user.links_of(provider.name)
    if account_id is not None:
        links = [link for link in links if link.account_id == account_id]
    if not links:
        raise GateError("not_found", f"no such account of {provider.title} is linked")
    if len(links) > 1:
        raise GateError(
            "invalid_request",
            f"several accounts of {provider.title} are linked: say which one in account_id",
        )
    return links[0]
