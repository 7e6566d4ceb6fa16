"""Finds the route of a path as API Gateway does: segment by segment, literals before parameters."""

from collections.abc import Iterable
from typing import Any, NamedTuple


class Found(NamedTuple):
    target: Any
    resource_path: str
    path_parameters: dict[str, str]


class Router:
    """Routes are (method, path with parameters in braces, target)."""

    def __init__(self, routes: Iterable[tuple[str, str, Any]]) -> None:
        self._root = _Node()
        self._literal: dict[tuple[str, str], Found] = {}
        """Routes without parameters: nothing else comes before them."""
        for method, path, target in routes:
            node, names = self._root, []
            for segment in path.strip("/").split("/"):
                if segment.startswith("{"):
                    names.append(segment.strip("{}"))
                    node.parameter = node.parameter or _Node()
                    node = node.parameter
                else:
                    node = node.literals.setdefault(segment, _Node())
            node.methods[method] = (target, path, names)
            if not names:
                self._literal[method, path] = Found(target, path, {})

    def find(self, method: str, path: str) -> Found | None:
        """None where API Gateway would say that there is no such resource, or not with this method."""
        if literal := self._literal.get((method, path)):
            return literal
        if not path.startswith("/"):
            return None
        return self._walk(self._root, path[1:].removesuffix("/").split("/"), 0, (), method)

    def _walk(self, node: "_Node", segments: list[str], at: int, values: tuple[str, ...], method: str) -> Found | None:
        if at == len(segments):
            route = node.methods.get(method)
            return Found(route[0], route[1], dict(zip(route[2], values, strict=True))) if route else None
        segment = segments[at]
        literal = node.literals.get(segment)
        found = self._walk(literal, segments, at + 1, values, method) if literal else None
        if found is None and node.parameter and segment:
            found = self._walk(node.parameter, segments, at + 1, (*values, segment), method)
        return found


class _Node:
    def __init__(self) -> None:
        self.literals: dict[str, _Node] = {}
        self.parameter: _Node | None = None
        self.methods: dict[str, tuple[Any, str, list[str]]] = {}
