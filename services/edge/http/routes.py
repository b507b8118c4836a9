"""Paths and methods: which handler a request is for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field

from services.edge.http.problems import MethodNotAllowedError, PathNotFoundError

Handler = Callable[..., Awaitable[None]]

ANY_METHOD = "*"
"""Stands for every method of a path that none is named for."""

ALL_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


@dataclass(frozen=True, slots=True)
class Match:
    """What a path leads to: a handler for each method, and its arguments."""

    handlers: Mapping[str, Handler]
    arguments: tuple[str, ...] = field(default=())

    @property
    def methods(self) -> tuple[str, ...]:
        """What may be done here: OPTIONS always."""
        named = ALL_METHODS if ANY_METHOD in self.handlers else tuple(self.handlers)
        return (*(method for method in named if method != "OPTIONS"), "OPTIONS")

    def handler(self, method: str) -> Handler | None:
        """The handler for a method; None for an OPTIONS that has none of its own.

        Raises MethodNotAllowedError.
        """
        found = self.handlers.get(method) or self.handlers.get(ANY_METHOD)
        if found is None and method != "OPTIONS":
            raise MethodNotAllowedError(metadata={"allow": ", ".join(self.methods)})
        return found


class Routes:
    """The paths of an edge.

    ``{name}`` stands for one segment, which becomes an argument. A tree is all paths that begin
    with a segment, with every method; its handler reads what follows from the exchange.
    """

    def __init__(self) -> None:
        self._routes: dict[int, list[tuple[tuple[str | None, ...], dict[str, Handler]]]] = {}
        self._trees: dict[str, Match] = {}
        self._added: list[tuple[str, str]] = []

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Each method and path template, in the order in which they were added."""
        return iter(self._added)

    def add(self, methods: str, path: str, handler: Handler) -> None:
        """Adds a route; ``methods`` are separated by spaces."""
        parts = path.removeprefix("/").split("/")
        shape = tuple(None if part.startswith("{") else part for part in parts)
        routes = self._routes.setdefault(len(shape), [])
        handlers = next((known for other, known in routes if other == shape), None)
        if handlers is None:
            handlers = {}
            routes.append((shape, handlers))
        handlers |= dict.fromkeys(methods.split(), handler)
        self._added += [(method, path) for method in methods.split()]

    def add_tree(self, segment: str, below: str, handler: Handler) -> None:
        """Adds everything below ``/segment/``, before all other routes.

        ``below`` is how what may stand there is described: ``{name}/{path}``.
        """
        self._trees[segment] = Match({ANY_METHOD: handler})
        self._added += [(method, f"/{segment}/{below}") for method in ALL_METHODS[:-1]]

    def in_tree(self, path: str) -> bool:
        """Whether a path is below a tree, whose handler answers whatever is asked there."""
        return path.partition("/")[2].partition("/")[0] in self._trees

    def find(self, path: str) -> Match:
        """Where a path leads. Raises PathNotFoundError."""
        parts = path.removeprefix("/").split("/")
        tree = self._trees.get(parts[0])
        if tree is not None and len(parts) > 1:
            return tree
        for shape, handlers in self._routes.get(len(parts), ()):
            arguments = _arguments(shape, parts)
            if arguments is not None:
                return Match(handlers, arguments)
        raise PathNotFoundError


def _arguments(shape: tuple[str | None, ...], parts: list[str]) -> tuple[str, ...] | None:
    """What stands in the open places of a shape; None when a path is not of it."""
    arguments = []
    for wanted, part in zip(shape, parts, strict=True):
        if wanted is None and part:
            arguments.append(part)
        elif wanted != part:
            return None
    return tuple(arguments)
