"""What runs every few minutes, without any visitor: post what each guest is listening to.

    python act.py

It uses the site's own configuration and store, so it needs no token of anybody's and refreshes what has
expired. A guest who has withdrawn something is passed over.
"""

import os
from pathlib import Path

import oauthgate


def act() -> None:
    config = os.environ.get("NOW_PLAYING_CONFIG") or Path(__file__).with_name("oauthgate.toml")
    with oauthgate.open(config) as gate:
        for user in gate.users():
            services = gate.services(user.user_id)
            invited = {name: text for link in user.links for name, text in link.extra.items()}
            try:
                playing = services["spotify"].get("me/player")
                if playing.status_code == 200 and "email" in invited:  # 204: nothing is playing
                    text = f"♪ {playing.json()['item']['name']}"
                    posted = services["twitter"].post("tweets", json={"text": text})
                    print(f"{invited['email']}: {posted.status_code}")
            except (oauthgate.NotLinked, oauthgate.RefreshFailed):
                continue


if __name__ == "__main__":
    act()
