"""The same as two AWS Lambda functions: the site behind an API gateway, and the job on a schedule.

In `oauthgate.toml`, `base_url` is the gateway's address then, and `store` a table of DynamoDB.
"""

from typing import Any

from act import act
from mangum import Mangum
from now_playing import app

site = Mangum(app, lifespan="off")


def job(event: dict[str, Any], context: object) -> None:
    act()
