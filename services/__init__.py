"""The services of Tollmesh: run each as ``python -m services.NAME``."""
