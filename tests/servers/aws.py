"""A private AWS, as moto imitates it: Systems Manager's parameters, Cognito's pools, DynamoDB.

Owns the life of moto's server, in a thread of this process, on a port of its own. boto3 finds it by the
environment, as it finds AWS.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Generator
from typing import Any

import httpx2

from .dynamodb import CREDENTIALS, REGION
from .processes import Missing, free_port


class AWS:
    """A running moto server at `endpoint`; `client(service)` is a boto3 client for it."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to find it, and nothing of the real AWS."""
        return {
            **CREDENTIALS,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    @contextlib.contextmanager
    def client(self, service: str) -> Generator[Any]:
        import boto3.session

        session = boto3.session.Session(
            aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
            region_name=REGION,
        )
        with contextlib.closing(session.client(service, endpoint_url=self.endpoint)) as client:
            yield client

    def put_parameters(self, **values: str) -> None:
        """Store decryptable parameters under `/tarot/prod/`."""
        with self.client("ssm") as ssm:
            for name, value in values.items():
                ssm.put_parameter(Name=f"/tarot/prod/{name}", Value=value, Type="SecureString")


@contextlib.contextmanager
def aws() -> Generator[AWS]:
    """Run one.

    Raises:
        Missing: moto or what its server needs is not installed.
    """
    for module in ("boto3", "moto", "flask_cors"):
        if importlib.util.find_spec(module) is None:
            raise Missing("moto is not installed: pip install 'moto[server]>=5.1' 'boto3>=1.40'")
    from moto.server import ThreadedMotoServer

    port = free_port()
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    endpoint = f"http://127.0.0.1:{port}"
    # What it holds is this process's, whichever server put it there.
    httpx2.post(f"{endpoint}/moto-api/reset").raise_for_status()
    try:
        yield AWS(endpoint)
    finally:
        server.stop()
