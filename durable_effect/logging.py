"""Logging: `Effect.log_*` writes to the stdlib logger that the `Logger` service names."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import attrs

from durable_effect.exit import Exit, Success
from durable_effect.ops import VOID, AnyEffect, OnExit, Provide, WithFiber

_RESERVED = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


def _no_annotations() -> Mapping[str, object]:
    return {}


@attrs.frozen
class Logger:
    """Where log lines go. A service that always exists: it adds nothing to `R`.

    `level` is the least level that is written (the stdlib logger's own level counts too); `annotations`
    become attributes of every log record.
    """

    logger: logging.Logger = attrs.field(factory=lambda: logging.getLogger("durable_effect"))
    level: int = logging.NOTSET
    annotations: Mapping[str, object] = attrs.field(factory=_no_annotations)

    def annotate(self, fields: Mapping[str, object]) -> Logger:
        """Make a logger with these annotations too."""
        return attrs.evolve(self, annotations={**self.annotations, **fields})

    def write(
        self, level: int, message: object, values: tuple[object, ...], fields: Mapping[str, object]
    ) -> None:
        """Write one line, if its level is high enough."""
        if level < self.level or not self.logger.isEnabledFor(level):
            return
        raised = next((value for value in values if isinstance(value, BaseException)), None)
        text = " ".join(str(part) for part in (message, *values) if part is not raised)
        extra = {_attribute(name): value for name, value in {**self.annotations, **fields}.items()}
        self.logger.log(level, text, exc_info=raised, extra=extra)


DEFAULT_LOGGER = Logger()


def _attribute(name: str) -> str:
    """Name the attribute of the log record; what `logging` itself uses is left alone."""
    return f"{name}_" if name in _RESERVED else name


def log(level: int, message: object, values: tuple[object, ...], fields: Mapping[str, object]) -> AnyEffect:
    """Write one line to the logger of the fiber."""

    def write(fiber: Any) -> AnyEffect:
        fiber.env.services.get(Logger, DEFAULT_LOGGER).write(level, message, values, fields)
        return VOID

    return WithFiber(write)


def annotate_logs(effect: AnyEffect, fields: Mapping[str, object]) -> AnyEffect:
    """Run with more annotations."""
    return Provide(effect, lambda env: env.add(Logger, env.get_or(Logger, DEFAULT_LOGGER).annotate(fields)))


def with_span(effect: AnyEffect, name: str, fields: Mapping[str, object]) -> AnyEffect:
    """Run with the span's name as an annotation, and log its end."""

    def end(outcome: Exit[Any, Any]) -> AnyEffect:
        how = "ended" if isinstance(outcome, Success) else "failed"
        return log(logging.DEBUG, f"span {name} {how}", (), {})

    return annotate_logs(OnExit(effect, end), {"span": name, **fields})
