"""Chains with Ethereum's JSON-RPC: a node is the calldata of a transaction to the inbox address."""
