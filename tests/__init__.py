"""The tests: a package, because others of this name (sniffpy brings one) would stand before it."""
