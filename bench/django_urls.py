"""Django's pages of the request part."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import path


def page(request: HttpRequest) -> HttpResponse:
    """Who the visitor is, as the middleware in front found it; "hello" without one."""
    visitor = request.META.get("oauthgate.user")
    if visitor is not None:
        return HttpResponse(visitor.user_id)
    session: Any = getattr(request, "session", None)
    return HttpResponse("hello" if session is None else session["user"])


def sign_in(request: HttpRequest) -> HttpResponse:
    """Put the visitor into the session."""
    request.session["user"] = "u" * 22
    request.session["name"] = "Ada Lovelace"
    return HttpResponse("signed in")


urlpatterns = [path("page", page), path("sign-in", sign_in)]
