"""The options of a sink: each sink declares its own as a `Section`, and they are validated like other settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from pydantic import ValidationError

from fer_stream.errors import ConfigError
from fer_stream.settings import schema
from fer_stream.settings.redaction import redact
from fer_stream.settings.sections import Section

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic_core import ErrorDetails

Options = TypeVar("Options", bound=Section)


def read(kind: type[Options], values: Mapping[str, object]) -> Options:
    """Return options of this kind from their values.

    Raises:
        ConfigError: an option or its value is not allowed; the message has one part per problem.
    """
    try:
        return kind(**values)
    except ValidationError as error:
        root, given = kind.model_json_schema(), dict(values)
        problems = [_problem(root, given, detail) for detail in error.errors(include_url=False)]
        raise ConfigError(redact("; ".join(dict.fromkeys(problems)))) from error


def _problem(root: schema.Schema, given: dict[str, object], detail: ErrorDetails) -> str:
    problem = schema.sentence(root, given, detail)[1]
    if detail["type"] == "extra_forbidden":
        return problem.replace("there is no setting", "there is no option", 1).replace("the settings", "the options", 1)
    return f"option {problem}"
