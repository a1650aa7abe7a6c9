"""The only import of Authlib: its pure functions, with types.

Authlib ships no type information; keeping it here keeps `Any` from spreading. Its clients are not
used: they exist twice and build an HTTP client for every call. It is loaded with the first sign-in,
because it brings much that is not used here.
"""

from __future__ import annotations


def code_challenge(code_verifier: str) -> str:
    """The S256 challenge of a verifier (RFC 7636 section 4.2)."""
    from authlib.oauth2.rfc7636 import create_s256_code_challenge

    challenge: str = create_s256_code_challenge(code_verifier)
    return challenge


def authorization_url(
    endpoint: str, *, client_id: str, redirect_uri: str, state: str, **parameters: str
) -> str:
    """The authorization request of the code grant as a URL (RFC 6749 section 4.1.1)."""
    from authlib.oauth2.rfc6749.parameters import prepare_grant_uri

    url: str = prepare_grant_uri(
        endpoint,
        client_id=client_id,
        response_type="code",
        redirect_uri=redirect_uri,
        state=state,
        **parameters,
    )
    return url
