"""A job without a browser: post what each user is listening to.

    python examples/job/post_now_playing.py examples/fastapi_app/oauthgate.toml

Run it beside the web workers, on the same configuration: it uses the same store, and a token that it
refreshes is theirs too. A user whose link has ended is passed over until the link is made again.
"""

from __future__ import annotations

import asyncio
import sys

import oauthgate


async def main(config: str) -> int:
    """Post for every user with both services linked; the number of posts."""
    posted = 0
    async with oauthgate.open(config) as gate:
        async for user in gate.users():
            services = await gate.services(user.user_id)
            try:
                reply = await services["spotify"].get("me/player")
                if reply.status_code != 200:  # 204: nothing is playing
                    continue
                item = reply.json()["item"]
                text = f"Listening to {item['name']} by {item['artists'][0]['name']}"
                reply = await services["twitter"].post("tweets", json={"text": text})
                posted += reply.is_success
            except oauthgate.NotLinked as missing:
                print(f"user {user.user_id}: {missing}")
    return posted


if __name__ == "__main__":
    print(f"{asyncio.run(main(sys.argv[1]))} posts")
