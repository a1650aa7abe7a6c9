"""What `oauthgate.fastapi` and `oauthgate.flask` give to an application."""
