"""`check`: whether a configuration works, and the addresses to register at each provider."""

from __future__ import annotations

import dataclasses
from argparse import Namespace
from collections.abc import AsyncIterator

from ..config import Config
from ..site import Site, configured_site
from . import check_network, check_site
from .findings import Finding, problem, warning
from .opening import database, gate, load
from .output import Output, Problem

_MARK = {"ok": "ok      ", "warning": "warning ", "problem": "PROBLEM "}
#: For a site without `base_url`: whoever registers these knows the port.
LOCAL = "http://localhost:PORT"


async def check(args: Namespace, out: Output) -> int:
    """Look at everything, print every finding; 1 when one of them is a problem."""
    config = load(args.file or args.config, out)
    found: list[Finding] = []

    def tell(finding: Finding) -> None:
        found.append(finding)
        out.say(f"{_MARK[finding.status]}{finding.about}: {finding.message}")

    out.say(f"{config.source}: read, {len(config.providers)} providers")
    for finding in check_site.findings(config):
        tell(finding)
    async for finding in _asked(config, offline=args.offline):
        tell(finding)
    addresses = [_addresses(config, name) for name in config.providers]
    for address in addresses:
        out.say(f"register at {address.pop('title')}:")
        for kind, url in address.items():
            if kind != "provider":
                out.say(f"  {kind.replace('_', ' ')}: {url}")
    problems = sum(each.status == "problem" for each in found)
    out.document(
        {
            "ok": not problems,
            "findings": [
                {"status": each.status, "about": each.about, "message": each.message} for each in found
            ],
            "register": addresses,
        }
    )
    warnings = sum(each.status == "warning" for each in found)
    out.say(f"{problems} problem{'s' * (problems != 1)}, {warnings} warning{'s' * (warnings != 1)}")
    return 1 if problems else 0


async def _asked(config: Config, *, offline: bool) -> AsyncIterator[Finding]:
    """What store, providers and the site itself answer."""
    path = database(config.store)
    if path is not None and not path.is_file():
        # Opening it would make it, and a mistyped path would then look like an empty site.
        yield warning("store", f"there is no database {path} yet; the site makes it at its first use")
        config = dataclasses.replace(config, store="memory:")
    try:
        there = path is not None and path.is_file()
        async with gate(config, hooks=True, existing=there) as opened:
            if path is None or there:
                async for finding in check_network.store(opened):
                    yield finding
            if offline:
                return
            for provider in config.providers.values():
                async for finding in check_network.provider(opened, provider):
                    yield finding
            async for finding in check_network.site(opened):
                yield finding
    except Problem as error:
        yield problem("configuration", str(error))


def _addresses(config: Config, name: str) -> dict[str, str]:
    """What a provider's console wants to know, by what it is called there."""
    site = configured_site(config) or Site(LOCAL, "", config.prefix, False, config.cookie)
    provider = config.providers[name]
    found = {
        "title": f"{provider.title} ([providers.{name}])",
        "provider": name,
        "redirect_uri": site.redirect_uri(name),
    }
    if provider.protocol == "oidc":
        found |= {
            "post_logout_redirect_uri": site.home,
            "backchannel_logout_uri": site.url(f"/{name}/backchannel-logout"),
            "frontchannel_logout_uri": site.url(f"/{name}/frontchannel-logout"),
        }
    return found
