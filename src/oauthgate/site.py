"""Where this site is: everything that is built from its address comes from here.

`base_url` is configuration. A request's `Host` is believed only where none is configured, and only
when it names this machine, so a forged one can change no redirect URI, cookie or link.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .config import Config
from .errors import GateError
from .providers import is_loopback
from .targets import safe_target

#: The page at the end of a sign-in in a window of its own, below the prefix.
POPUP_PATH = "/popup"

_HOST = re.compile(r"(localhost|[a-z0-9-]+\.localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::(\d{1,5}))?")


@dataclass(frozen=True, slots=True)
class Site:
    """The address of one gate: `origin` without and `path` with the app's mount point."""

    origin: str
    path: str
    prefix: str
    secure: bool
    cookie: str

    @property
    def home(self) -> str:
        return f"{self.origin}{self.path}/"

    @property
    def host(self) -> str:
        return self.origin.partition("://")[2]

    @property
    def cookie_name(self) -> str:
        """`__Host-` makes browsers refuse the cookie from a sibling domain or another path; they
        refuse it over plain http too, so there it has its plain name."""
        return f"__Host-{self.cookie}" if self.secure else self.cookie

    @property
    def flow_prefix(self) -> str:
        return f"{self.cookie_name}-flow-"

    def url(self, route: str) -> str:
        """The absolute URL of one of the gate's routes."""
        return f"{self.origin}{self.path}{self.prefix}{route}"

    def redirect_uri(self, provider: str) -> str:
        return self.url(f"/{provider}/callback")

    def target(self, candidate: str | None) -> str:
        """A return target as an absolute URL on this site; the home page for an unusable one.

        It comes out of a sealed flow: there the popup's page is a target of the gate's own making, and
        never one that a request asked for.
        """
        if candidate is not None and candidate.startswith(f"{self.prefix}{POPUP_PATH}?"):
            return f"{self.origin}{self.path}{candidate}"
        return f"{self.origin}{self.path}{safe_target(candidate, self.prefix)}"


def configured_site(config: Config) -> Site | None:
    """The site of a configuration with a `base_url`."""
    if not config.base_url:
        return None
    scheme, _, rest = config.base_url.partition("://")
    host, slash, path = rest.partition("/")
    return Site(
        origin=f"{scheme}://{host.lower()}",
        path=f"{slash}{path}".rstrip("/"),
        prefix=config.prefix,
        secure=scheme == "https",
        cookie=config.cookie,
    )


def local_site(config: Config, scheme: str, host: str | None, mount: str) -> Site:
    """The site of a request on this machine. Raises `GateError` 421 for any other host."""
    match = _HOST.fullmatch((host or "").lower())
    if match is None or not is_loopback(match.group(1).strip("[]")):
        raise GateError(
            "host_not_allowed",
            "this host is not served: set base_url in [oauthgate] to the address of the site",
        )
    return Site(
        origin=f"{scheme}://{match.group(0)}",
        path=mount.rstrip("/"),
        prefix=config.prefix,
        secure=scheme == "https",
        cookie=config.cookie,
    )
