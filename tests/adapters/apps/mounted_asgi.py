"""The FastAPI application of `fastapi_app`, with its gate inside, mounted below `/app`."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.routing import Mount

from .fastapi_app import app as inner

app = Starlette(routes=[Mount("/app", app=inner)])
