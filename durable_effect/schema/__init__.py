"""Schemas: annotations and combinators to and from JSON, strictly, with the path of every problem."""

from durable_effect.schema.problem import Problem, SchemaError
from durable_effect.schema.schema import Schema
from durable_effect.schema.shapes import JsonValue

__all__ = ["JsonValue", "Problem", "Schema", "SchemaError"]
