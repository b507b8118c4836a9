"""Paths and methods: which handler a request is for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from services.edge.http.problems import MethodNotAllowedError, PathNotFoundError

Handler = Callable[..., Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Match:
    """What a path leads to: a handler for each method, and its arguments."""

    handlers: Mapping[str, Handler]
    arguments: tuple[str, ...] = field(default=())

    def handler(self, method: str) -> Handler:
        """The handler for a method. Raises MethodNotAllowedError."""
        found = self.handlers.get(method)
        if found is None:
            raise MethodNotAllowedError(metadata={"allow": ", ".join(self.handlers)})
        return found


class Routes:
    """The paths of an edge. ``{name}`` stands for one segment, which becomes an argument."""

    def __init__(self) -> None:
        self._routes: dict[tuple[str | None, ...], dict[str, Handler]] = {}

    def add(self, methods: str, path: str, handler: Handler) -> None:
        """Adds a route; ``methods`` are separated by spaces."""
        shape = tuple(
            None if part.startswith("{") else part for part in path.removeprefix("/").split("/")
        )
        for method in methods.split():
            self._routes.setdefault(shape, {})[method] = handler

    def find(self, path: str) -> Match:
        """Where a path leads. Raises PathNotFoundError."""
        parts = path.removeprefix("/").split("/")
        for shape, handlers in self._routes.items():
            if len(shape) == len(parts) and all(
                part != "" if wanted is None else part == wanted
                for wanted, part in zip(shape, parts, strict=True)
            ):
                arguments = tuple(
                    part for wanted, part in zip(shape, parts, strict=True) if wanted is None
                )
                return Match(handlers, arguments)
        raise PathNotFoundError
