"""The Flask application of `flask_app`, with its gate inside, mounted below `/app`."""

from __future__ import annotations

from werkzeug.exceptions import NotFound
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from .flask_app import app as inner

app = DispatcherMiddleware(NotFound(), {"/app": inner})
