"""FastAPI: async and plain handlers, lifespan state, a stream, a background task, a WebSocket."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import BackgroundTasks, FastAPI, Request, WebSocket
from fastapi.responses import JSONResponse, StreamingResponse

import oauthgate
from oauthgate import AsyncService

from . import config, mark, marked, process, visitor


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    mark(f"started-{os.getpid()}")
    yield {"greeting": "hello"}
    mark(f"stopped-{os.getpid()}")


app = FastAPI(lifespan=lifespan)
oauthgate.install(app, config())


@app.get("/who")
async def who(request: Request) -> Any:
    return visitor(request.state.oauth, request.state.services)


@app.get("/call/{service}/{path:path}")
async def call(request: Request, service: str, path: str) -> Any:
    reply = await request.state.services[service].get(path)
    return JSONResponse(reply.json(), reply.status_code)


@app.get("/sync/{service}/{path:path}")
def sync(request: Request, service: str, path: str) -> Any:
    reply = request.state.services.sync[service].get(path)
    return JSONResponse(reply.json(), reply.status_code)


@app.get("/process")
async def this_process() -> Any:
    return process()


@app.get("/state")
async def state(request: Request) -> Any:
    """The names in this request's state, of which the last is left there for a later one to find."""
    found = sorted(request.scope["state"])
    request.scope["state"]["left_behind"] = True
    return {"names": found, "greeting": request.state.greeting}


@app.get("/stream")
async def stream(request: Request) -> StreamingResponse:
    """Two events; the second one comes, with a call to the service, when the test has seen the first."""
    spotify: AsyncService = request.state.services["spotify"]

    async def events() -> AsyncIterator[str]:
        yield "data: first\n\n"
        while not marked("go"):
            await asyncio.sleep(0.005)
        yield f"data: {(await spotify.get('me')).json()['id']}\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


@app.post("/later")
async def later(request: Request, tasks: BackgroundTasks) -> Any:
    """Answer at once, and call the service afterwards."""
    spotify: AsyncService = request.state.services["spotify"]

    async def work() -> None:
        mark("later", (await spotify.get("me")).json()["id"])

    tasks.add_task(work)
    return {"accepted": True}


@app.websocket("/ws")
async def socket(websocket: WebSocket) -> None:
    """Echo; `me` is answered with the service's account, any other name of a service raises."""
    await websocket.accept()
    async for text in websocket.iter_text():
        if text == "who":
            await websocket.send_json(visitor(websocket.state.oauth, websocket.state.services))
        elif text.startswith("call "):
            reply = await websocket.state.services[text.removeprefix("call ")].get("me")
            await websocket.send_json(reply.json())
        else:
            await websocket.send_text(text)
