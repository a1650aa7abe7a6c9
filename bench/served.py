"""The application that a server's process of the server and growth parts serves."""

from __future__ import annotations

from .apps import from_environment

app = from_environment()
