"""How a process of the mesh starts and stops: settings, logs, signals. Knows no domain."""
