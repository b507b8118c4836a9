"""The credit service: the global ledger."""
