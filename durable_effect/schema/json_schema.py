"""JSON Schema (draft 2020-12) of the encoded side of a shape."""

from __future__ import annotations

from typing import Any, Final

from durable_effect.schema.classes import Fielded
from durable_effect.schema.shapes import (
    NULL_KIND,
    Alias,
    Choice,
    Fields,
    Filtered,
    Fixed,
    Items,
    Record,
    Shape,
    Transformed,
    Unknown,
)
from durable_effect.schema.texts import Written
from durable_effect.schema.unions import Member, Tagged, Union, core

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
TYPES: Final = {NULL_KIND: "null", bool: "boolean", int: "integer", float: "number", str: "string"}

JsonSchema = dict[str, Any]


def json_schema_of(shape: Shape) -> JsonSchema:
    """The document for a shape: classes and named types under `$defs`, referred to by `$ref`."""
    writer = Writer()
    body = writer.write(shape)
    document = {"$schema": DIALECT, **body}
    if writer.definitions:
        document["$defs"] = writer.definitions
    return document


class Writer:
    """Writes one document; each named shape is written once."""

    def __init__(self) -> None:
        self.definitions: dict[str, JsonSchema] = {}
        self._names: dict[Shape, str] = {}

    def write(self, shape: Shape) -> JsonSchema:
        """The description of one shape."""
        match shape:
            case Fielded() | Alias():
                return self._reference(shape)
            case Filtered():
                return {**self.write(shape.inner), "description": shape.message}
            case Transformed():
                return self.write(shape.inner)
            case Unknown():
                return {}
            case Choice():
                return {"enum": list(shape.choices or ())}
            case Written():
                return {"type": "string"} | ({"format": shape.json_format} if shape.json_format else {})
            case Items() | Fixed() | Record() | Fields():
                return self._container(shape)
            case Union():
                return self._union(shape)
            case Tagged():
                return {"oneOf": [self._member(shape.key, member) for member in shape.members]}
            case _:
                return {"type": TYPES[float if float in shape.kinds else next(iter(shape.kinds))]}

    def _container(self, shape: Items | Fixed | Record | Fields) -> JsonSchema:
        match shape:
            case Items():
                unique = {"uniqueItems": True} if shape.distinct else {}
                return {"type": "array", "items": self.write(shape.item)} | unique
            case Fixed():
                size = len(shape.items)
                items = {"prefixItems": [self.write(item) for item in shape.items]} if size else {}
                return {"type": "array", **items, "minItems": size, "maxItems": size}
            case Record():
                return {
                    "type": "object",
                    "propertyNames": self.write(shape.key),
                    "additionalProperties": self.write(shape.value),
                }
            case Fields():
                return self._object(shape)

    def _object(self, shape: Fields | Fielded) -> JsonSchema:
        properties = {key: self.write(field) for key, field in shape.fields.items()}
        required = [key for key in shape.fields if key in shape.required]
        closed = {"additionalProperties": False} if shape.strict else {}
        return {"type": "object", "properties": properties, "required": required} | closed

    def _union(self, shape: Union) -> JsonSchema:
        members = [self.write(member) for member in shape.members]
        return members[0] if len(members) == 1 else {"anyOf": members}

    def _member(self, key: str, member: Member) -> JsonSchema:
        if not member.added:
            return self.write(member.shape)
        tag = {"properties": {key: {"const": member.tag}}, "required": [key]}
        inner = core(member.shape)
        if isinstance(inner, Fielded) and inner.strict:  # closed: the tag must be among its own properties
            body = self._object(inner)
            return body | {
                "properties": tag["properties"] | body["properties"],
                "required": [key, *body["required"]],
            }
        return {"allOf": [self.write(member.shape), {"type": "object", **tag}]}

    def _reference(self, shape: Fielded | Alias) -> JsonSchema:
        name = self._names.get(shape)
        if name is None:
            name = self._names[shape] = self._free_name(shape.name)
            self.definitions[name] = {}  # taken, while the shape is written and may refer to itself
            body = self.write(shape.target) if isinstance(shape, Alias) else self._object(shape)
            self.definitions[name] = body
        return {"$ref": f"#/$defs/{name}"}

    def _free_name(self, name: str) -> str:
        name = "".join(letter if letter.isalnum() or letter in "_-." else "_" for letter in name).strip("_")
        number, free = 1, name
        while free in self.definitions:
            number += 1
            free = f"{name}_{number}"
        return free
