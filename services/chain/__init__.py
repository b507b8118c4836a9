"""The chain service: files on blockchains, read verified and published."""
