"""Generated contracts of Tollmesh: chain, version 1."""
