"""What a provider's table must hold to work, and to work safely: checked once, at start."""

from __future__ import annotations

import math
import re

from .config_tables import nearest, shown
from .errors import ConfigError
from .protocols import jose
from .protocols.oauth1_signature import load_private_key
from .providers import PROFILE_FIELDS, Provider, is_loopback, origin, plain_url

#: Endpoints of the authorization server: they belong to its issuer and go when that is another one.
ENDPOINTS = (
    "authorization_endpoint",
    "token_endpoint",
    "refresh_endpoint",
    "request_token_url",
    "userinfo_endpoint",
    "jwks_uri",
    "revocation_endpoint",
    "introspection_endpoint",
    "end_session_endpoint",
)
#: Parameters of an authorization request that are the protocol's, so that no table can set them.
PROTOCOL_PARAMETERS = frozenset(
    {"response_type", "client_id", "redirect_uri", "scope", "state", "nonce", "code_challenge"}
    | {
        "code_challenge_method",
        "request",
        "request_uri",
        "dpop_jkt",
        "oauth_token",
        "oauth_callback",
        "uri",
        "endpoint",
    }
)


#: Fields of the routes that begin a flow, so that none is carried under such a name.
RESERVED_FIELDS = frozenset({"next", "then", "csrf_token", "popup", "opener"})


def check_provider(provider: Provider, where: str) -> None:
    """Refuse what cannot work or cannot be safe."""
    for key in (*ENDPOINTS, "issuer", "api_base_url"):
        url = getattr(provider, key)
        if url:
            _check_url(url, f"{where} {key}")
    for host in provider.api_hosts:
        if re.search(r"\*\.[^.]*$", host) or "*" in host.replace("*.", "", 1):
            raise ConfigError(
                f"{where} api_hosts: found {host!r}, expected at most *. before a registered name"
            )
        # The token goes there: over http anybody on the way would read it.
        _check_url(host if "://" in host else f"https://{host}", f"{where} api_hosts")
    for name, url in provider.profile_documents.items():
        if name in ("token", "claims", "callback"):
            raise ConfigError(f"{where} profile_documents.{name}: this name has a meaning in paths")
        _check_url(url, f"{where} profile_documents")
    for key, names in (
        ("profile", [*provider.profile]),
        ("required_profile", provider.required_profile),
    ):
        for name in names:
            if name not in PROFILE_FIELDS:
                raise ConfigError(
                    f"{where} {key}: unknown field {name!r}{nearest(name, PROFILE_FIELDS)}"
                )
    if provider.protocol == "oauth1":
        for key in ("request_token_url", "authorization_endpoint", "token_endpoint"):
            _need(provider, key, where, "OAuth 1.0a needs it")
        if provider.signature_method == "RSA-SHA1":
            _need(provider, "private_key", where, "RSA-SHA1 signs with it")
        else:
            _need(provider, "client_secret", where, f"{provider.signature_method} signs with it")
    elif not provider.issuer:
        for key in ("authorization_endpoint", "token_endpoint"):
            _need(provider, key, where, "without it there is no issuer to discover it from")
    if provider.protocol == "oidc":
        _need(provider, "issuer", where, "ID tokens are checked against it")
    if provider.protocol == "oauth2" and not provider.userinfo_endpoint:
        if not any(path.startswith("token.") for path in _paths(provider, "id")):
            raise ConfigError(
                f"{where} userinfo_endpoint: missing, expected where the account's id is read, or "
                'a profile.id of the token answer such as "token.user_id"'
            )
    if provider.protocol != "oidc" and not provider.profile.get("id"):
        raise ConfigError(f"{where} profile.id: missing, expected the path to the account's id")
    if provider.required_claims and provider.protocol != "oidc":
        # It would be asked of nobody.
        raise ConfigError(
            f"{where} required_claims: claims of the ID token, which only OpenID Connect has; use allow "
            "in [access] instead"
        )
    _check_handover(provider, where)
    _check_client_authentication(provider, where)
    _check_dpop(provider, where)
    _check_keys(provider, where)
    for name in {*provider.authorization_params} & PROTOCOL_PARAMETERS:
        raise ConfigError(
            f"{where} authorization_params.{name}: a parameter of the protocol, which is set by itself"
        )
    for name, value in provider.headers.items():
        if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name) or not re.fullmatch(
            r"[\x20-\x7e]*", value
        ):
            raise ConfigError(f"{where} headers.{name}: expected a header name and visible ASCII")
    if not 0 < provider.timeout <= 60:
        raise ConfigError(f"{where} timeout: found {provider.timeout}, expected 0 to 60 seconds")
    if not 0 <= provider.refresh_leeway < math.inf:
        raise ConfigError(f"{where} refresh_leeway: found {provider.refresh_leeway}, expected 0 or more")
    for name, carried in provider.carry_fields().items():
        try:
            re.compile(carried.pattern)
        except re.error as error:
            raise ConfigError(f"{where} carry.{name}.pattern: {error}") from None
        if name in RESERVED_FIELDS or not 0 < carried.max_length <= 500:
            raise ConfigError(f"{where} carry.{name}: a reserved name, or max_length not 1 to 500")


def _paths(provider: Provider, name: str) -> list[str]:
    paths = provider.profile.get(name, [])
    return [paths] if isinstance(paths, str) else list(paths)


def _check_client_authentication(provider: Provider, where: str) -> None:
    method = provider.token_endpoint_auth_method
    if provider.protocol == "oauth1" or method == "none":
        return
    if method == "private_key_jwt":
        _need(provider, "private_key", where, "private_key_jwt signs with it")
    elif provider.client_secret_jwt is not None:
        _need(provider, "private_key", where, "the client secret is a JWT signed with it")
    elif method is not None:
        _need(
            provider,
            "client_secret",
            where,
            f'{method} needs it; for a public client say token_endpoint_auth_method = "none"',
        )


def _check_handover(provider: Provider, where: str) -> None:
    """A proof that could not fail, or that never sees the token, would be none."""
    for uri in provider.handover_redirect_uris:
        _check_redirect_uri(uri, f"{where} handover_redirect_uris")
    info = provider.token_info
    if info is None:
        return
    _check_url(info.url, f"{where} token_info.url")
    for key in ("field", "equals"):
        if getattr(info, key) == "":
            raise ConfigError(
                f"{where} token_info.{key}: empty, expected the field of the answer that names the "
                "client, and what it must be"
            )
    if info.auth != "token" and not any("{access_token}" in text for text in info.params.values()):
        raise ConfigError(
            f"{where} token_info.params: expected the parameter that the token goes into, such as "
            '{ token = "{access_token}" }, because auth does not send it'
        )


def check_handover_addresses(provider: Provider, gate_url: str, where: str) -> None:
    """The codes of this gate's own flows are for the browser that began each of them, and for nobody who
    found one and hands it over. `gate_url` is where the gate answers."""
    for uri in provider.handover_redirect_uris:
        if uri.startswith(f"{gate_url}/"):
            raise ConfigError(
                f"{where} handover_redirect_uris: found {uri!r}, which is the gate's own; expected the "
                "addresses that the front end's own sign-ins return to"
            )


def _check_redirect_uri(uri: str, where: str) -> None:
    """RFC 8252 section 7: https, a scheme of the application's own, or http on the person's machine."""
    scheme, colon, _ = uri.partition(":")
    if scheme in ("http", "https"):
        _check_url(uri, where)
        return
    own = re.fullmatch(r"[a-z][a-z0-9+-]*(\.[a-z0-9+-]+)+", scheme)
    if not (own and colon) or not re.fullmatch(r"[\x21-\x7e]+", uri) or "#" in uri:
        raise ConfigError(
            f"{where}: found {shown(uri)!r}, expected https, a scheme with a dot in it such as "
            "com.example.app:/signed-in, or http on this machine, and no fragment"
        )


def _check_dpop(provider: Provider, where: str) -> None:
    """A bound token goes into one header, with one scheme, and must be called what it is."""
    if not provider.dpop:
        return
    if provider.protocol == "oauth1":
        raise ConfigError(
            f"{where} dpop: OAuth 1.0a signs every request with a secret already; leave it out, or use "
            "the provider's OAuth 2"
        )
    for key, needed in (
        ("token_header", "Authorization"),
        ("token_scheme", "Bearer"),
        ("token_type_check", True),
    ):
        if getattr(provider, key) != needed:
            raise ConfigError(
                f"{where} {key}: cannot be changed together with dpop = true, which sends "
                "Authorization: DPoP and accepts no token of another type; leave one of them out"
            )


def _check_keys(provider: Provider, where: str) -> None:
    """Every algorithm must be one that we know, and a private key must be able to sign with its own."""
    for key in ("id_token_signed_response_alg", "userinfo_signed_response_alg"):
        algorithm = getattr(provider, key)
        if algorithm and algorithm not in jose.ALGORITHMS:
            raise ConfigError(f"{where} {key}: unknown algorithm{nearest(algorithm, jose.ALGORITHMS)}")
    if provider.max_age is not None and provider.max_age < 0:
        raise ConfigError(f"{where} max_age: found {provider.max_age}, expected 0 or more seconds")
    method = provider.token_endpoint_auth_method
    algorithm = provider.token_endpoint_auth_signing_alg
    if method == "client_secret_jwt" and algorithm not in ("", "HS256", "HS384", "HS512"):
        raise ConfigError(
            f"{where} token_endpoint_auth_signing_alg: found {algorithm!r}, expected an HS one"
        )
    if not provider.private_key:
        return
    try:
        if provider.protocol == "oauth1":
            load_private_key(provider.private_key)
            return
        key_of_client = jose.load_signing_key(provider.private_key)
        if provider.client_secret_jwt is not None:
            algorithm = provider.client_secret_jwt.alg
        jose.sign({}, key_of_client, algorithm or jose.algorithm_for(key_of_client))
    except ValueError as error:
        raise ConfigError(f"{where} private_key: {error}") from None
    except Exception:  # whatever joserfc has against this pair of key and algorithm
        raise ConfigError(
            f"{where} private_key: this key cannot sign with {algorithm or 'its usual algorithm'}"
        ) from None


def _need(provider: Provider, key: str, where: str, why: str) -> None:
    if not getattr(provider, key):
        raise ConfigError(f"{where} {key}: missing; {why}")


def _check_url(url: str, where: str) -> None:
    try:
        scheme, host, _ = origin(url)
    except ValueError as error:
        raise ConfigError(f"{where}: found {shown(url)!r}: {error}") from None
    if "#" in url or not plain_url(url):
        raise ConfigError(f"{where}: found {url!r}, expected no fragment and no space")
    if scheme == "http" and not is_loopback(host):
        raise ConfigError(f"{where}: found {url!r}, expected https (http is for this machine only)")
