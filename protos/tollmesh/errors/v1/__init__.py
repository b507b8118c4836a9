"""Generated contracts of Tollmesh: errors, version 1."""
