"""Generated contracts of Tollmesh: edge, version 1."""
