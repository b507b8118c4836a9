"""The credit service on a simulated cluster, in virtual time: see ``docs/proof.md``."""
