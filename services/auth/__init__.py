"""The auth service: accounts, API keys, decisions."""
