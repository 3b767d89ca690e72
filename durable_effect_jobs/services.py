"""Which services handlers say that they need, so that a missing one is found before anything runs."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterator
from typing import Any

from durable_effect import Env, Need, Tag
from durable_effect.context import key_name
from durable_effect_jobs.registry import Registry

__all__ = ["declared_needs", "missing_services"]


def missing_services(registry: Registry, env: Env) -> tuple[str, ...]:
    """The services that some handler's annotation names and ``env`` does not hold.

    An annotation cannot tell which ``Tag`` it stands for: where tags are provided an unknown type may be one.
    """
    if any(isinstance(key, Tag) for key in env):
        return ()
    needed = {
        need
        for job in registry.jobs.values()
        for handler in job.handlers()
        for need in declared_needs(handler)
    }
    return tuple(sorted(key_name(need) for need in needed if need not in env))


def declared_needs(handler: Callable[..., Any]) -> frozenset[Any]:
    """The services in a handler's return annotation; none where it has none, or one that cannot be read."""
    function = inspect.unwrap(handler)
    try:
        returned = typing.get_type_hints(function).get("return")
    except Exception:  # an annotation is code, and may fail in any way
        return frozenset()
    return frozenset(_needs(returned))


def _needs(annotation: Any) -> Iterator[Any]:
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) is Need:
        yield from arguments
    else:
        for argument in arguments:
            yield from _needs(argument)
