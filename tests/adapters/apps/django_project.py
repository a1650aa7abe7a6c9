"""A Django project in one file, for both modes: `asgi` and `wsgi`.

Django is untyped here, as everywhere without its stubs.
"""

from __future__ import annotations

import secrets
from typing import Any

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path

from oauthgate import ASGIGate, WSGIGate

from . import config, process, visitor

settings.configure(
    ALLOWED_HOSTS=["localhost"],
    MIDDLEWARE=["oauthgate.django.GateMiddleware"],
    ROOT_URLCONF=__name__,
    SECRET_KEY=secrets.token_urlsafe(32),
)
django.setup()


def who(request: HttpRequest) -> HttpResponse:
    return JsonResponse(visitor(request.state.oauth, request.state.services))


def call(request: HttpRequest, service: str, below: str) -> HttpResponse:
    """A plain view: in both modes `services.sync` holds blocking clients."""
    reply = request.state.services.sync[service].get(below)
    return JsonResponse(reply.json(), status=reply.status_code)


async def acall(request: HttpRequest, service: str, below: str) -> HttpResponse:
    """An async view, for ASGI."""
    reply = await request.state.services[service].get(below)
    return JsonResponse(reply.json(), status=reply.status_code)


def this_process(request: HttpRequest) -> HttpResponse:
    return JsonResponse(process())


def broken(request: HttpRequest) -> HttpResponse:
    raise LookupError("a defect of the application's own")


urlpatterns: list[Any] = [
    path("who", who),
    path("call/<service>/<path:below>", call),
    path("acall/<service>/<path:below>", acall),
    path("process", this_process),
    path("broken", broken),
]

asgi = ASGIGate(get_asgi_application(), config())
wsgi = WSGIGate(get_wsgi_application(), config())
