"""The engines: one file an engine, and the only places that import an engine's library."""
