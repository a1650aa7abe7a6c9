"""django-oauth-toolkit, a second OAuth 2.0 and OpenID provider, as a Django project in one file.

Run as `python dot.py FOLDER`, with the configuration (README.md lists the keys) in SERVER_CONFIG
and the port in PORT; the SQLite database goes into FOLDER. Prints `ready <issuer>` once it answers.
Django and the toolkit carry no types, so their modules are fetched by name and stay untyped.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import signal
import socketserver
import sys
import threading
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

KNOWN = {"applications", "rsa_private_key", "settings", "users"}
LOGIN_PAGE = """<!DOCTYPE html><title>Sign in</title>
<form method="post">{% csrf_token %}{{ form.as_p }}
<input type="hidden" name="next" value="{{ next }}">
<button type="submit">Sign in</button></form>"""


class Server(socketserver.ThreadingMixIn, WSGIServer):
    """One thread per request: a client may hold a connection open while another one asks."""

    daemon_threads = True


class Handler(WSGIRequestHandler):
    """Prints the request line without its query, in which codes and tokens may stand."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Print method, path and status."""
        path = self.path.partition("?")[0]
        print(f"{self.command} {path} {getattr(code, 'value', code)}", file=sys.stderr, flush=True)


def new_rsa_key() -> str:
    """Return a new RSA key as PEM, for RS256."""
    return (
        rsa.generate_private_key(public_exponent=65537, key_size=2048)
        .private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        .decode("ascii")
    )


def configure(folder: Path, config: dict[str, Any]) -> None:
    """Set Django up on a database in `folder`."""
    toolkit = {
        "OIDC_ENABLED": True,
        "OIDC_RSA_PRIVATE_KEY": config.get("rsa_private_key") or new_rsa_key(),
        "OIDC_RP_INITIATED_LOGOUT_ENABLED": True,
        "PKCE_REQUIRED": True,
        "ROTATE_REFRESH_TOKEN": True,
        "REFRESH_TOKEN_REUSE_PROTECTION": True,
        "ACCESS_TOKEN_EXPIRE_SECONDS": 3600,
        "SCOPES": {
            "openid": "Sign you in",
            "profile": "Read your name",
            "email": "Read your e-mail address",
            "read": "Read your data",
            "introspection": "Introspect tokens",
        },
        "DEFAULT_SCOPES": ["read"],
        **config.get("settings", {}),
    }
    import_module("django.conf").settings.configure(
        ALLOWED_HOSTS=["127.0.0.1", "localhost"],
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": str(folder / "dot.sqlite3"),
                "OPTIONS": {"timeout": 10, "transaction_mode": "IMMEDIATE"},
            }
        },
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        INSTALLED_APPS=[
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.sessions",
            "oauth2_provider",
        ],
        LOGIN_URL="/accounts/login/",
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.common.CommonMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
        ],
        OAUTH2_PROVIDER=toolkit,
        # The secrets are random and live for one test run: a slow hash would only slow the tests.
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
        ROOT_URLCONF="dot_urls",
        SECRET_KEY=secrets.token_urlsafe(48),
        # Cookies ignore ports; under its own name a session here cannot disturb an app's.
        SESSION_COOKIE_NAME="dot_session",
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "OPTIONS": {
                    "loaders": [
                        (
                            "django.template.loaders.locmem.Loader",
                            {"registration/login.html": LOGIN_PAGE},
                        ),
                        "django.template.loaders.app_directories.Loader",
                    ]
                },
            }
        ],
        USE_TZ=True,
    )
    import_module("django").setup()
    # Read on first use, and the class can only be made now that the models are loaded.
    toolkit.setdefault("OAUTH2_VALIDATOR_CLASS", make_validator())
    sys.modules["dot_urls"] = make_urls()


def make_validator() -> type:
    """Return the toolkit's validator, with the claims of profile and email added."""
    base: Any = import_module("oauth2_provider.oauth2_validators").OAuth2Validator

    class Validator(base):  # type: ignore[misc]  # untyped, as all of the toolkit
        """Fills the standard claims from Django's user."""

        def get_additional_claims(self) -> dict[str, Any]:
            """Return how to compute each claim (OpenID Connect Core 5.1)."""
            return {
                "name": lambda request: request.user.get_full_name(),
                "given_name": lambda request: request.user.first_name,
                "family_name": lambda request: request.user.last_name,
                "preferred_username": lambda request: request.user.get_username(),
                "email": lambda request: request.user.email,
                "email_verified": lambda request: bool(request.user.email),
            }

    return Validator


def make_urls() -> ModuleType:
    """Return the URL configuration: the toolkit at /o/, Django's login, and a protected API."""
    urls = import_module("django.urls")
    auth_views = import_module("django.contrib.auth.views")
    protected_resource = import_module("oauth2_provider.decorators").protected_resource
    json_response = import_module("django.http").JsonResponse

    @protected_resource(scopes=["read"])  # type: ignore[untyped-decorator]
    def me(request: Any) -> object:
        user = request.resource_owner
        return json_response({"id": user.pk, "username": user.get_username(), "email": user.email})

    module = ModuleType("dot_urls")
    module.__dict__["urlpatterns"] = [
        urls.path("o/", urls.include("oauth2_provider.urls", namespace="oauth2_provider")),
        urls.path("accounts/login/", auth_views.LoginView.as_view()),
        urls.path("api/me", me),
    ]
    return module


def populate(config: dict[str, Any]) -> None:
    """Create the tables, the users and the applications."""
    import_module("django.core.management").call_command("migrate", verbosity=0)
    user_model = import_module("django.contrib.auth").get_user_model()
    for user in config.get("users", []):
        user_model.objects.create_user(**user)
    application_model = import_module("oauth2_provider.models").get_application_model()
    for given in config.get("applications", []):
        fields = {
            "name": given["client_id"],
            "client_type": "confidential",
            "authorization_grant_type": "authorization-code",
            "algorithm": "RS256",
            **given,
            "redirect_uris": " ".join(given.get("redirect_uris", [])),
            "post_logout_redirect_uris": " ".join(given.get("post_logout_redirect_uris", [])),
        }
        # HS256 signs with the secret itself, which a hash of it cannot give back.
        fields.setdefault("hash_client_secret", fields["algorithm"] != "HS256")
        application = application_model(**fields)
        application.full_clean(exclude=["user"])
        application.save()


def end_with_stdin() -> None:
    """End when standard input closes: the process that started this one has gone."""
    sys.stdin.buffer.read()
    os._exit(0)


def main() -> None:
    """Serve until told to stop."""
    config: dict[str, Any] = json.loads(os.environ.get("SERVER_CONFIG", "{}"))
    if unknown := set(config) - KNOWN:
        sys.exit(f"unknown configuration key {sorted(unknown)}; known: {sorted(KNOWN)}")
    if len(sys.argv) != 2:
        sys.exit("usage: dot.py FOLDER")
    logging.basicConfig(level=logging.WARNING)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    if os.environ.get("SERVER_EXIT_WITH_STDIN") == "1":
        threading.Thread(target=end_with_stdin, daemon=True).start()
    configure(Path(sys.argv[1]), config)
    populate(config)
    application = import_module("django.core.wsgi").get_wsgi_application()
    port = int(os.environ.get("PORT", "0"))
    with make_server("127.0.0.1", port, application, Server, Handler) as server:
        print(f"ready http://127.0.0.1:{server.server_port}/o", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
