"""Settings as text: TOML for people to edit, and the error messages for invalid values.

Everything here works on the tree's JSON Schema (`fer_stream.settings.tree.Settings.model_json_schema`) and on plain
values, so a field's description, range and default are written only at the field. A *path* is a tuple of keys from the
root.
"""

from __future__ import annotations

import json
import re
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic_core import ErrorDetails

Schema = dict[str, Any]
KeyPath = tuple[str, ...]

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")

_HEAD = """\
# Settings of fer-stream: each with its meaning, its allowed values and its default. Remove the "#" to change one.
# Flags override environment variables (FER_STREAM_DETECTOR__MIN_FACE=20), and those override this file.
"""

_CAMERA_HEAD = """
# Cameras: one table per camera, with the camera's own settings.

#[cameras.front]
"""


def dotted(path: KeyPath) -> str:
    """Return a path as a TOML key: ``cameras."front.door".rate``."""
    return ".".join(key if _BARE_KEY.fullmatch(key) else toml(key) for key in path)


def toml(value: Any) -> str:
    """Return a JSON value (without null) as TOML, on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{dotted((key,))} = {toml(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml(part) for part in value) + "]"
    # JSON scalars are valid TOML, except for the character U+007F.
    return json.dumps(value, ensure_ascii=False, default=str).replace("\x7f", "\\u007f")


def flatten(tree: dict[str, Any], path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """Yield ``(path, value)`` of every leaf; an empty table counts as a leaf."""
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from flatten(value, (*path, key))
        else:
            yield (*path, key), value


def schema_at(root: Schema, path: KeyPath) -> Schema:
    """Return the schema at a path, with references resolved and null left out; empty if the path does not exist."""
    schema = _resolve(root, root)
    for key in path:
        part = schema.get("properties", {}).get(key) or _any_name(schema)
        if not part:
            return {}
        schema = _resolve(root, part)
    return schema


def _any_name(schema: Schema) -> Schema:
    """Return the schema of the values in a table whose keys are free names; empty if it is no such table."""
    part = next(iter(schema.get("patternProperties", {}).values()), schema.get("additionalProperties"))
    return part if isinstance(part, dict) else {}


def _resolve(root: Schema, schema: Schema) -> Schema:
    if "anyOf" in schema:
        schema = schema | next(part for part in schema["anyOf"] if part.get("type") != "null")
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rpartition("/")[2]] | {k: v for k, v in schema.items() if k != "$ref"}
    return schema


def allowed(schema: Schema) -> str:
    """Return a text that describes the values a schema allows: ``a whole number from 12 to 4096``."""
    if "enum" in schema:
        *first, last = (repr(choice) for choice in schema["enum"])
        return f"{', '.join(first)} or {last}"
    kind = schema.get("type")
    if kind in ("integer", "number"):
        words = "a whole number" if kind == "integer" else "a number"
        for key, relation in (
            ("minimum", " from"),
            ("exclusiveMinimum", " above"),
            ("maximum", " to" if "minimum" in schema else ", at most"),
            ("exclusiveMaximum", " and below"),
        ):
            if key in schema:
                words += f"{relation} {int(schema[key])}" if kind == "integer" else f"{relation} {schema[key]:g}"
        return words
    if kind == "array":
        items = schema.get("prefixItems", [])
        size = f" of {len(items)}" if items else f" of at most {schema['maxItems']}" if "maxItems" in schema else ""
        return f"a list{size}, each {allowed(items[0] if items else schema.get('items', {}))}"
    return {"boolean": "true or false", "string": "text", "object": "a table"}.get(kind or "", "something else")


def unknown(root: Schema, path: KeyPath) -> str:
    """Return the message for a path that is no setting; it suggests the most similar setting."""
    siblings = schema_at(root, path[:-1]).get("properties", {})
    near = [(*path[:-1], key) for key in get_close_matches(path[-1], siblings, 1, 0.7)]
    if not near:
        everywhere = {leaf[-1]: leaf for leaf in leaves(root)}
        near = [everywhere[key] for key in get_close_matches(path[-1], everywhere, 1, 0.8)]
    advice = f"did you mean {dotted(near[0])}?" if near else f"the settings there are {', '.join(siblings) or 'none'}"
    return f"there is no setting {dotted(path)}; {advice}"


def leaves(root: Schema, path: KeyPath = ()) -> Iterator[KeyPath]:
    """Yield the path of every setting; ``NAME`` stands for a free name, such as a camera's."""
    schema = schema_at(root, path)
    if "properties" in schema:
        for key in schema["properties"]:
            yield from leaves(root, (*path, key))
    elif "$ref" in _any_name(schema):
        yield from leaves(root, (*path, "NAME"))
    else:
        yield path


def sentence(root: Schema, tree: dict[str, Any], error: ErrorDetails) -> tuple[KeyPath, str]:
    """Return the path of a validation error, and the message for people.

    Args:
        root: the tree's schema.
        tree: the values that were refused.
        error: one of pydantic's errors about them.
    """
    loc = error["loc"]
    if loc[-1] == "[key]":
        rule = "1 to 63 letters, digits, '_', '.' and '-', and begins with a letter or digit"
        where = tuple(map(str, loc[:-2]))
        return (*where, str(loc[-2])), f"{loc[-2]!r} cannot be a name in {dotted(where)}; a name has {rule}"
    path = tuple(str(key) for key in loc[: next((n for n, key in enumerate(loc) if isinstance(key, int)), len(loc))])
    if error["type"] == "extra_forbidden":
        return path, unknown(root, path)
    value: Any = tree
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    shown = '"***"' if schema_at(root, path).get("writeOnly") else toml(value)  # it may be the secret itself
    given = dotted(path) if isinstance(value, dict) or not path else f"{dotted(path)} = {shown}"
    if error["type"] == "value_error":
        return path, f"{given}: {error['ctx']['error']}" if path else str(error["ctx"]["error"])
    rule = allowed(schema_at(root, path))
    if error["type"] == "string_pattern_mismatch" and rule == "text":
        rule = f"text of the form {error['ctx']['pattern']}{_example(schema_at(root, path))}"
    return path, f"{given} is not allowed: it must be {rule}"


def _example(schema: Schema) -> str:
    found = next((text for text in (*schema.get("examples", ()), schema.get("default")) if text), None)
    return f", such as {toml(found)}" if found else ""


_NAMED = {"calibration": "front", "deliver": "archive"}
"""Tables by a free name, with the name that stands in the template, beside the cameras'."""


def template(root: Schema, defaults: dict[str, Any]) -> str:
    """Return a TOML file of every setting, all commented out, so that it loads as the defaults.

    Args:
        root: the tree's schema.
        defaults: the tree's default values; a setting with examples shows its first example instead.
    """
    sections = [name for name in root["properties"] if "properties" in schema_at(root, (name,))]
    plain = [name for name in root["properties"] if name not in (*sections, "cameras", *_NAMED)]
    text = _HEAD + "".join(_commented(schema_at(root, (name,)), name, defaults[name]) for name in plain) + _CAMERA_HEAD
    camera = schema_at(root, ("cameras", "front"))
    for name, schema in camera["properties"].items():
        text += _commented(_resolve(root, schema), name, schema.get("default"))
    for section in sections:
        schema = schema_at(root, (section,))
        text += f"\n# {schema['description']}\n\n[{section}]\n"
        for name in schema["properties"]:
            text += _commented(schema_at(root, (section, name)), name, defaults[section][name])
    for group, example in _NAMED.items():
        text += f"\n# {root['properties'][group]['description']}\n\n#[{group}.{example}]\n"
        for name, schema in schema_at(root, (group, example))["properties"].items():
            text += _commented(_resolve(root, schema), name, schema.get("default"))
    return text


def _commented(schema: Schema, name: str, default: Any) -> str:
    rule = f" [{allowed(schema)}]" if schema["type"] in ("integer", "number") or "enum" in schema else ""
    value, note = default, ""
    if "examples" in schema:
        value = schema["examples"][0]
        note = f"  # an example; by default {toml(default) if default else 'not set'}"
    return f"\n# {schema['description']}{rule}\n#{name} = {toml(value)}{note}\n"
