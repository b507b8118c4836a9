"""Generated contracts of Tollmesh: auth, version 1."""
