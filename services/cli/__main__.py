"""The entry point of ``tollmesh``: runs a command and turns its errors into exit statuses."""

from __future__ import annotations

import sys

from services.cli.app import app
from services.cli.failure import exit_status


def main() -> None:
    """Runs the command line and exits. What the statuses mean: ``services.cli.failure``."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:  # noqa: BLE001 (the top of the program: every error gets a status)
        sys.exit(exit_status(error))


if __name__ == "__main__":
    main()
