"""durable_effect: work as typed values. What it yields, how it may fail and what it needs are in its type."""

# ruff: noqa: I001 - in the order in which one learns them; `effect` has to be first, the others build on it.

from durable_effect.effect import Do, Effect, Restore
from durable_effect.context import Env, Key, Need, Reference, Tag
from durable_effect.errors import (
    DeadlockError,
    Defect,
    EffectFailure,
    EffectTimeout,
    Interrupted,
    MissingServiceError,
    NotSynchronousError,
    TypedError,
)
from durable_effect.eliminate import catch, on, provide, provide_service, provide_service_effect
from durable_effect.exit import Cause, Die, Exit, Fail, Failure, Interrupt, Success
from durable_effect.layer import Layer, Memo
from durable_effect.managed_runtime import ManagedRuntime
from durable_effect.scope import Scope
from durable_effect.deferred import Deferred
from durable_effect.semaphore import Semaphore
from durable_effect.latch import Latch
from durable_effect.ref import Ref, SynchronizedRef
from durable_effect.queue import Queue, QueueEnded
from durable_effect.runtime import Fiber
from durable_effect.duration import Duration
from durable_effect.backoff import Backoff
from durable_effect.schedule import Schedule
from durable_effect.schema import Schema, SchemaError
from durable_effect.clock import Clock, TestClock
from durable_effect.random import Random
from durable_effect.logging import Logger

__all__ = [  # noqa: RUF022 - see above
    "Effect",
    "Do",
    "Need",
    "TypedError",
    "Defect",
    "catch",
    "on",
    "provide",
    "provide_service",
    "provide_service_effect",
    "Layer",
    "ManagedRuntime",
    "Tag",
    "Key",
    "Exit",
    "Success",
    "Failure",
    "Cause",
    "Fail",
    "Die",
    "Interrupt",
    "Schema",
    "SchemaError",
    "Duration",
    "Backoff",
    "Schedule",
    "Clock",
    "TestClock",
    "Random",
    "Logger",
    "Fiber",
    "Scope",
    "Deferred",
    "Semaphore",
    "Latch",
    "Ref",
    "SynchronizedRef",
    "Queue",
    "QueueEnded",
    "Env",
    "Reference",
    "Restore",
    "Memo",
    "EffectTimeout",
    "MissingServiceError",
    "NotSynchronousError",
    "DeadlockError",
    "EffectFailure",
    "Interrupted",
]
