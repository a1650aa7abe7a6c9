"""The `oauthgate` command, run as an operator runs it: as a process of its own."""
