"""Checked reading of named parameters: a value has the right type, shape and range, or an `EffigyError` names it.

The worker reads the JSON parameters of its requests with `Parameters`. The command line turns its words into the same
values first (`backend.service.argument_parser`), so that both report an error with the same sentence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import EffigyError
from ..reading import frame_rate_of

REQUIRED: Any = object()
"""Default of a parameter that must be given."""
LARGEST_DENOMINATOR = 1001
"""Of a frame rate: the broadcast rates are multiples of 1/1001."""


class Parameters:
    """The parameters of one request, or a group of parameters inside a request; a value of None counts as not given."""

    def __init__(self, values: Any, context: str, *, absolute_paths: bool = True) -> None:
        """`context` begins each error sentence (`avatar.splats`). `absolute_paths`: refuse relative paths, because the
        worker's current folder means nothing to the client.
        """
        if not isinstance(values, dict):
            raise EffigyError(f"{context} takes its parameters by name, but got {_in_words(values)}.")
        self.values, self.context = values, context
        self._absolute_paths = absolute_paths

    def has(self, name: str) -> bool:
        return self.values.get(name) is not None

    def allow_only(self, *names: str) -> None:
        """Refuse any other parameter: a misspelt name would otherwise be ignored silently."""
        if unknown := sorted(set(self.values) - set(names)):
            raise EffigyError(
                f"{self.context} has no parameter “{unknown[0]}”: it takes {', '.join(names) or 'nothing'}."
            )

    def group(self, name: str) -> Parameters:
        return Parameters(self._get(name, REQUIRED), f"{self.context}: {name}", absolute_paths=self._absolute_paths)

    def groups(self, name: str) -> list[Parameters]:
        entries = self._get(name, REQUIRED)
        if not isinstance(entries, list):
            raise self._wrong_type(name, "a list", entries)
        return [
            Parameters(entry, f"{self.context}: {name}[{index}]", absolute_paths=self._absolute_paths)
            for index, entry in enumerate(entries)
        ]

    def text(self, name: str, default: Any = REQUIRED, choices: Sequence[str] | None = None) -> Any:
        value = self._get(name, default)
        if value is not default and not isinstance(value, str):
            raise self._wrong_type(name, "text", value)
        if choices and value is not None and value not in choices:
            raise EffigyError(f"{self.context}: there is no {name} “{value}”; choose one of {', '.join(choices)}.")
        return value

    def path(self, name: str, default: Any = REQUIRED) -> Any:
        value = self.text(name, default)
        return default if value is default else self._path(name, value)

    def paths(self, name: str) -> tuple[Path, ...]:
        """One path or a list of paths."""
        value = self._get(name, REQUIRED)
        values = value if isinstance(value, list) else [value]
        if not values or not all(isinstance(entry, str) for entry in values):
            raise self._wrong_type(name, "text", value)
        return tuple(self._path(name, entry) for entry in values)

    def number(
        self,
        name: str,
        default: Any = REQUIRED,
        minimum: float = -math.inf,
        maximum: float = math.inf,
        *,
        above_minimum: bool = False,
    ) -> Any:
        """A finite number in [minimum, maximum], or in (minimum, maximum] with `above_minimum`."""
        return self._number(name, default, minimum, maximum, above_minimum, "a number")

    def integer(self, name: str, default: Any = REQUIRED, minimum: float = -math.inf, maximum: float = math.inf) -> Any:
        value = self._number(name, default, minimum, maximum, False, "a whole number")
        if value is not default and value != int(value):
            raise self._wrong_type(name, "a whole number", value)
        return value if value is default else int(value)

    def flag(self, name: str, default: bool = False) -> bool:
        value = self._get(name, default)
        if not isinstance(value, bool):
            raise self._wrong_type(name, "true or false", value)
        return value

    def frame_rate(self, name: str, default: Any = REQUIRED) -> Any:
        """Frames a second: `25`, `23.976` or `30000/1001`, as text or as a number."""
        value = self._get(name, default)
        if value is default:
            return default
        try:
            # The text of a bool or of anything else that is no number is refused here as well.
            return frame_rate_of(value).limit_denominator(LARGEST_DENOMINATOR)
        except ValueError as error:
            raise self._wrong_type(name, "a frame rate such as 25, 23.976 or 30000/1001", value) from error

    def array(self, name: str, shape: tuple[int, ...], default: Any = REQUIRED) -> Any:
        """Finite float64 numbers of this shape, from nested lists or an array."""
        value = self._get(name, default)
        if value is default:
            return default
        try:
            array = np.asarray(value, np.float64)
        except (TypeError, ValueError):
            array = None
        wanted = " × ".join(map(str, shape))
        if array is None or array.shape != shape:
            found = _in_words(value) if array is None else " × ".join(map(str, array.shape)) or "one number"
            raise EffigyError(f"{self.context}: {name} must be {wanted} numbers, but is {found}.")
        if not np.isfinite(array).all():
            raise EffigyError(f"{self.context}: {name} holds numbers that are not finite.")
        return array

    def _get(self, name: str, default: Any) -> Any:
        value = self.values.get(name)
        if value is not None:
            return value
        if default is REQUIRED:
            raise EffigyError(f"{self.context} needs “{name}”.")
        return default

    def _path(self, name: str, value: str) -> Path:
        path = Path(value)
        if self._absolute_paths and not path.is_absolute():
            raise EffigyError(f"{self.context}: {name} must be a full path, but is “{value}”.")
        return path

    def _number(
        self, name: str, default: Any, minimum: float, maximum: float, above_minimum: bool, type_in_words: str
    ) -> Any:
        value = self._get(name, default)
        if value is default:
            return default
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not _is_finite(value):
            raise self._wrong_type(name, type_in_words, value)
        if not minimum <= value <= maximum or (above_minimum and value == minimum):
            allowed = _range_in_words(minimum, maximum, above_minimum)
            raise EffigyError(f"{self.context}: {name} is {value:g}, but must {allowed}.")
        return value

    def _wrong_type(self, name: str, wanted: str, found: Any) -> EffigyError:
        return EffigyError(f"{self.context}: {name} must be {wanted}, but is {_in_words(found)}.")


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        # JSON allows whole numbers that no float can hold.
        return False


def _range_in_words(minimum: float, maximum: float, above_minimum: bool) -> str:
    if math.isinf(maximum):
        return f"be above {minimum:g}" if above_minimum else f"be {minimum:g} or more"
    return f"lie between {minimum:g} and {maximum:g}"


def _in_words(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value) if _is_finite(value) else "not a finite number"
    if isinstance(value, str):
        return f"“{value}”"
    return {list: "a list", dict: "a group of values"}.get(type(value), type(value).__name__)
