"""Reading a request's parameters: each is what it should be, or a sentence names it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import EffigyError

REQUIRED = object()


class Parameters:
    """The parameters of one request, or a group inside them; `of` is how sentences call it (`avatar.splats`)."""

    def __init__(self, values: Any, of: str) -> None:
        if not isinstance(values, dict):
            raise EffigyError(f"{of} takes its parameters by name, but got {_kind(values)}.")
        self.values, self.of = values, of

    def has(self, name: str) -> bool:
        return self.values.get(name) is not None

    def known(self, *names: str) -> None:
        """Refuse misspelt parameters, which would otherwise be left out in silence."""
        if strange := sorted(set(self.values) - set(names)):
            raise EffigyError(f"{self.of} knows no “{strange[0]}”: it takes {', '.join(names) or 'nothing'}.")

    def group(self, name: str) -> Parameters:
        return Parameters(self._get(name, REQUIRED), f"{self.of}: {name}")

    def groups(self, name: str) -> list[Parameters]:
        entries = self._get(name, REQUIRED)
        if not isinstance(entries, list):
            raise self._wrong(name, "a list", entries)
        return [Parameters(entry, f"{self.of}: {name}[{index}]") for index, entry in enumerate(entries)]

    def text(self, name: str, default: Any = REQUIRED, choices: Sequence[str] | None = None) -> Any:
        value = self._get(name, default)
        if value is not default and not isinstance(value, str):
            raise self._wrong(name, "text", value)
        if choices and value is not None and value not in choices:
            raise EffigyError(f"{self.of}: there is no {name} “{value}”; choose one of {', '.join(choices)}.")
        return value

    def path(self, name: str, default: Any = REQUIRED) -> Any:
        value = self.text(name, default)
        if value is default:
            return default
        path = Path(value)
        if not path.is_absolute():
            raise EffigyError(f"{self.of}: {name} must be a full path, but is “{value}”.")
        return path

    def number(self, name: str, default: Any = REQUIRED, least: float = -math.inf, most: float = math.inf) -> Any:
        value = self._get(name, default)
        if value is default:
            return default
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise self._wrong(name, "a number", value)
        if not least <= value <= most:
            raise EffigyError(f"{self.of}: {name} is {value:g}, but must lie between {least:g} and {most:g}.")
        return value

    def integer(self, name: str, default: Any = REQUIRED, least: float = -math.inf, most: float = math.inf) -> Any:
        value = self.number(name, default, least, most)
        if value is not default and value != int(value):
            raise self._wrong(name, "a whole number", value)
        return value if value is default else int(value)

    def flag(self, name: str, default: bool = False) -> bool:
        value = self._get(name, default)
        if not isinstance(value, bool):
            raise self._wrong(name, "true or false", value)
        return value

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
            found = _kind(value) if array is None else " × ".join(map(str, array.shape)) or "one number"
            raise EffigyError(f"{self.of}: {name} must be {wanted} numbers, but is {found}.")
        if not np.isfinite(array).all():
            raise EffigyError(f"{self.of}: {name} holds numbers that are not finite.")
        return array

    def _get(self, name: str, default: Any) -> Any:
        value = self.values.get(name)
        if value is not None:
            return value
        if default is REQUIRED:
            raise EffigyError(f"{self.of} needs “{name}”.")
        return default

    def _wrong(self, name: str, wanted: str, found: Any) -> EffigyError:
        return EffigyError(f"{self.of}: {name} must be {wanted}, but is {_kind(found)}.")


def _kind(value: Any) -> str:
    if isinstance(value, (bool, int, float)) or value is None:
        return {True: "true", False: "false", None: "nothing"}.get(value, str(value))
    if isinstance(value, str):
        return f"“{value}”"
    return {list: "a list", dict: "a group of values"}.get(type(value), type(value).__name__)
