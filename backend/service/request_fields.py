"""How a request declares its fields, and how a request is read from named values.

A request is a frozen dataclass, one for each command. Each field is declared once, with `positional`, `option` or
`flag`: its type annotation, default, allowed values and description for help. The command line's parser is generated
from these declarations (`backend.service.argument_parser`), and `read_request` checks and converts the values of a
request for the command line and the worker alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from fractions import Fraction
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any, ClassVar, TypeVar, get_args, get_type_hints

from .parameters import REQUIRED, Parameters

_FIELD_SPEC = "effigy"
"""Key of a `FieldSpec` in a dataclass field's metadata."""
_MANY_PATHS = tuple[Path, ...]


@dataclass(frozen=True)
class FieldSpec:
    """What is known of a request's field beside its name, type and default."""

    description: str
    metavar: str | None
    """How usage lines call the value; None for a flag, which has no value, and for a choice, which lists its values."""
    positional: bool = False
    choices: Sequence[str] | None = None
    minimum: float = -math.inf
    above_minimum: bool = False
    """Whether the minimum itself is refused."""
    default_in_words: str | None = None
    """For help: what happens where the field is left at None."""
    parameter: str | None = None
    """Name in the worker's requests where it differs from the field's name."""


def positional(metavar: str, description: str = "", *, default: Any = MISSING, parameter: str | None = None) -> Any:
    """An argument that the command line takes by its position."""
    return field(default=default, metadata={_FIELD_SPEC: FieldSpec(description, metavar, True, parameter=parameter)})


def option(
    description: str,
    metavar: str | None = None,
    *,
    default: Any = MISSING,
    choices: Sequence[str] | None = None,
    minimum: float = -math.inf,
    above_minimum: bool = False,
    default_in_words: str | None = None,
) -> Any:
    """An argument that the command line takes as `--name VALUE`; without a default it is required."""
    spec = FieldSpec(
        description,
        metavar,
        choices=choices,
        minimum=minimum,
        above_minimum=above_minimum,
        default_in_words=default_in_words,
    )
    return field(default=default, metadata={_FIELD_SPEC: spec})


def flag(description: str) -> Any:
    """An argument that the command line takes as `--name`; false by default."""
    return field(default=False, metadata={_FIELD_SPEC: FieldSpec(description, None)})


@dataclass(frozen=True)
class Request:
    """Base of the requests in `backend.service.requests`."""

    command: ClassVar[str]
    """Name of the command."""
    summary: ClassVar[str]
    """What the command does, for `--help`."""

    @property
    def output(self) -> Path | None:
        """The file or folder that the command writes, if it writes one."""
        return None

    @property
    def locked(self) -> tuple[Path, ...]:
        """What nobody else may write while the command runs: by default its output."""
        return (self.output,) if self.output else ()


AnyRequest = TypeVar("AnyRequest", bound=Request)


def spec_of(request_field: Field[Any]) -> FieldSpec:
    return request_field.metadata[_FIELD_SPEC]


def parameter_name(request_field: Field[Any]) -> str:
    return spec_of(request_field).parameter or request_field.name


def parameter_names(request_class: type[Request]) -> tuple[str, ...]:
    return tuple(parameter_name(request_field) for request_field in fields(request_class))


@cache
def field_types(request_class: type[Request]) -> dict[str, Any]:
    """The type of each field; `T | None` counts as `T`."""
    hints = get_type_hints(request_class)
    return {each.name: _without_none(hints[each.name]) for each in fields(request_class)}


def takes_many(request_class: type[Request], name: str) -> bool:
    """Whether this field holds one or more paths."""
    return field_types(request_class)[name] == _MANY_PATHS


def read_request(request_class: type[AnyRequest], parameters: Parameters) -> AnyRequest:
    """Check and convert the values of one request; the first wrong one raises an `EffigyError` that names it.

    Parameters that the request does not have are not looked at: `Parameters.allow_only` refuses them.
    """
    return request_class(**{each.name: _read(request_class, each, parameters) for each in fields(request_class)})


def _read(request_class: type[Request], request_field: Field[Any], parameters: Parameters) -> Any:
    spec, name = spec_of(request_field), parameter_name(request_field)
    default: Any = REQUIRED if request_field.default is MISSING else request_field.default
    value_type = field_types(request_class)[request_field.name]
    if value_type is bool:
        return parameters.flag(name, default)
    if value_type is str:
        return parameters.text(name, default, choices=spec.choices)
    if value_type is int:
        return parameters.integer(name, default, spec.minimum)
    if value_type is float:
        number = parameters.number(name, default, spec.minimum, above_minimum=spec.above_minimum)
        return None if number is None else float(number)
    if value_type is Fraction:
        return parameters.frame_rate(name, default)
    if value_type is Path:
        return parameters.path(name, default)
    if value_type == _MANY_PATHS:
        return parameters.paths(name)
    raise TypeError(f"{request_class.__name__}.{request_field.name} has a type that no request can hold: {value_type}")


def _without_none(hint: Any) -> Any:
    members = [member for member in get_args(hint) if member is not NoneType]
    return members[0] if NoneType in get_args(hint) and len(members) == 1 else hint
