"""The worker's messages as dataclasses, checked in one place when they arrive.

`read_message` makes an answer or an event of a line, or raises a `NoMessage` that says why the line is none. What a
connection carries beside messages is expected: a login banner of `ssh`, a warning that a library prints, the end of a
line that was cut off. None of it may end the thread that reads. The rules are those of `backend/service/messages.py`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from .array_folders import ArrayFolders
from .arrays import take_arrays

MAX_DEPTH: Final = 64
"""Lists and objects inside one another in one message; requests and answers have 8 at most."""
MAX_ID: Final = 1 << 53
MAX_COUNT: Final = 1 << 53
"""Of the units of a stage."""
MAX_METRICS: Final = 100
CHANNELS: Final = 52
MAX_PREVIEW: Final = 16384
"""Pixels on a side of a preview."""
LONGEST_TEXT: Final = 20_000
"""Characters of a sentence, a stage's name or a traceback; a longer text is cut off."""
SHOWN: Final = 80
"""Bytes of a line that is no message that the log shows."""


class NoMessage(ValueError):
    """A line that is not a valid message. `number`: the id of the request that it was to answer, if it has one."""

    def __init__(self, reason: str, number: int | None = None) -> None:
        super().__init__(reason)
        self.number = number


@dataclass(frozen=True)
class WorkerInfo:
    """The worker's answer to `hello`."""

    schema: int
    """Version of the protocol."""

    @classmethod
    def from_answer(cls, answer: object) -> WorkerInfo:
        """Raises a ValueError for an answer that no version of the worker gives."""
        schema = answer.get("schema") if isinstance(answer, dict) else None
        if type(schema) is not int:
            raise ValueError("it does not say which version of the protocol it follows")
        return cls(schema)


@dataclass(frozen=True)
class Answer:
    """The answer to the request `number`: `result`, or `error` with a sentence for the user."""

    number: int
    result: Any = None
    error: str | None = None
    traceback: str | None = None
    """Of a defect in the worker, otherwise None."""


MOST_OVERRUN: Final = 2.0
"""So many times longer than expected the steps after one that overruns are assumed to take at most."""


@dataclass(frozen=True)
class WholeJob:
    """How far the whole job is, over all of its stages."""

    share: float
    """0 to 1"""
    ahead: float
    """`share` at the end of the current step."""
    left: float
    """Seconds to the end of the job."""
    step: int
    """Counted from 1."""
    steps: int
    title: str
    """What the step does."""

    def left_after(self, waited: float) -> float:
        """Seconds to the end of the job, `waited` seconds after this report and before the next."""
        after_step = self.left * (1 - self.ahead) / max(1 - self.share, 1e-9)
        step = self.left - after_step
        if waited <= step:
            return self.left - waited
        # The step takes longer than expected, and so may the later ones. The longer all has gone as expected, the less
        # does one step say.
        trust = 3.0 + self.left * self.share / max(1 - self.share, 1e-9) / 4
        return after_step * min((waited + trust) / (step + trust), MOST_OVERRUN)


@dataclass(frozen=True)
class JobProgress:
    """Progress of the job's current stage."""

    stage: str
    done: int
    total: int
    eta: float | None = None
    """Seconds left in this stage."""
    rate: float | None = None
    """Units per second."""
    metrics: dict[str, float | None] = field(default_factory=dict)
    unit: str = ""
    """Of `done` and `total`, such as MB; empty for frames and steps."""
    whole: WholeJob | None = None
    """None from a worker that does not say it: an older one, or for a job whose stages are not known."""


@dataclass(frozen=True)
class JobPreview:
    """A preview image of the job."""

    image: np.ndarray
    """(H, W, 3) uint8 sRGB, top row first."""


@dataclass(frozen=True)
class JobMessage:
    """A line of text for the user."""

    text: str


@dataclass(frozen=True)
class JobFace:
    """What a camera shows in one frame."""

    time: float
    """Seconds, when the camera had the frame."""
    age: float
    """Seconds from then until the worker sent this."""
    channels: tuple[float, ...] | None
    """ARKit's 52 channels in alphabetical order; None where no face is seen."""
    head: tuple[float, ...] | None
    """(3,) axis-angle of the head towards the camera, head space."""


@dataclass(frozen=True)
class JobDone:
    """The job has succeeded."""

    result: dict[str, Any]
    """Its keys depend on the kind of the job."""


@dataclass(frozen=True)
class JobFailed:
    """The job has failed or was cancelled, with a sentence for the user."""

    message: str
    cancelled: bool


JobEvent = JobProgress | JobPreview | JobMessage | JobFace | JobDone | JobFailed


@dataclass(frozen=True)
class JobNotification:
    """An event of the job that the worker calls `job`."""

    job: str
    event: JobEvent


def read_message(line: bytes, folders: ArrayFolders | None) -> Answer | JobNotification | None:
    """What a line says, with its arrays, which may be in files of `folders`. None for a notification that this client
    does not know. Raises a `NoMessage`.
    """
    message: dict[str, Any] = {}
    try:
        message = _decode(line)
        return _from_message(take_arrays(message, folders))
    except NoMessage:
        raise
    except (ValueError, KeyError, OSError, RecursionError, MemoryError) as error:
        reason = f"it lacks “{error.args[0]}”" if isinstance(error, KeyError) else str(error) or type(error).__name__
        raise NoMessage(reason[:200], _id_of(message)) from error


def shown(line: bytes) -> str:
    """A line that is no message, shortened for the log."""
    return f"{line[:SHOWN]!r}{'…' if len(line) > SHOWN else ''}"


def _decode(line: bytes) -> dict[str, Any]:
    value = _DECODER.decode(line.decode("utf-8"))
    if not isinstance(value, dict):
        raise NoMessage("it is not a JSON object")
    if _is_deeper(value, MAX_DEPTH):
        raise NoMessage(f"it is nested more than {MAX_DEPTH} deep", _id_of(value))
    return value


def _from_message(message: Mapping[str, Any]) -> Answer | JobNotification | None:
    """A decoded message with its arrays. Raises a KeyError or ValueError."""
    if "id" in message:
        return _answer(message)
    method = message.get("method")
    make_event = _EVENTS.get(method) if isinstance(method, str) else None
    if make_event is None:
        return None
    params = _of_type(message, "params", dict)
    return JobNotification(_of_type(params, "job", str), make_event(params))


def _answer(message: Mapping[str, Any]) -> Answer:
    number = _id_of(message)
    if number is None:
        # The worker answers so where it could not read a request's id.
        error = message.get("error")
        raise ValueError(f"its id is no whole number; it says: {error!r}" if error else "its id is no whole number")
    if message.get("error") is None:
        return Answer(number, result=message["result"])
    error = _of_type(message, "error", dict)
    data = error.get("data")
    return Answer(number, error=_text(error, "message"), traceback=None if data is None else _text(error, "data"))


def _progress(params: Mapping[str, Any]) -> JobProgress:
    metrics = params.get("metrics") or {}
    if not isinstance(metrics, dict) or len(metrics) > MAX_METRICS:
        raise ValueError("its metrics are not a short list of named numbers")
    return JobProgress(
        _text(params, "stage"),
        _count(params, "done"),
        _count(params, "total"),
        _number(params, "eta"),
        _number(params, "rate"),
        {_clean(name): _number(metrics, name) for name in metrics},
        whole=None if params.get("whole") is None else _whole(_of_type(params, "whole", dict)),
    )


def _whole(values: Mapping[str, Any]) -> WholeJob:
    share, ahead, left = (_number(values, name) for name in ("share", "ahead", "left"))
    if share is None or ahead is None or left is None or not 0 <= share <= ahead <= 1.0001 or left < 0:
        raise ValueError("its shares of the whole job are out of range")
    step, steps = _count(values, "step"), _count(values, "steps")
    return WholeJob(share, min(ahead, 1.0), left, step, steps, _text(values, "title"))


def _preview(params: Mapping[str, Any]) -> JobPreview:
    image = params["image"]
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError("its preview is not an image with three bytes a pixel")
    if not 0 < min(image.shape[:2]) <= max(image.shape[:2]) <= MAX_PREVIEW:
        raise ValueError(f"its preview has {image.shape[1]} x {image.shape[0]} pixels")
    return JobPreview(image)


def _face(params: Mapping[str, Any]) -> JobFace:
    time, age = _number(params, "time"), _number(params, "age")
    if time is None or age is None:
        raise ValueError("its face has no time")
    if params.get("channels") is None:
        return JobFace(time, age, None, None)
    return JobFace(time, age, _numbers(params, "channels", CHANNELS), _numbers(params, "head", 3))


_EVENTS: Final[Mapping[str, Callable[[Mapping[str, Any]], JobEvent]]] = {
    "job.progress": _progress,
    "job.preview": _preview,
    "job.message": lambda params: JobMessage(_text(params, "text")),
    "job.face": _face,
    "job.done": lambda params: JobDone(_of_type(params, "result", dict)),
    "job.failed": lambda params: JobFailed(_text(params, "message"), cancelled=False),
    "job.cancelled": lambda params: JobFailed(_text(params, "message"), cancelled=True),
}


def _of_type(values: Mapping[str, Any], name: str, kind: type) -> Any:
    if type(value := values[name]) is not kind:
        raise ValueError(f"its “{name}” is of the wrong type")
    return value


def _text(values: Mapping[str, Any], name: str) -> str:
    return _clean(_of_type(values, name, str))


def _clean(text: str) -> str:
    """A text that Blender can show: it refuses one with half of a pair of surrogates."""
    return text[:LONGEST_TEXT].encode("utf-8", "replace").decode("utf-8")


def _count(values: Mapping[str, Any], name: str) -> int:
    if not 0 <= (value := _of_type(values, name, int)) <= MAX_COUNT:
        raise ValueError(f"its “{name}” is out of range")
    return value


def _number(values: Mapping[str, Any], name: str) -> float | None:
    value = values.get(name)
    if value is None:
        return None
    if type(value) is int and abs(value) <= MAX_COUNT:
        return float(value)
    if type(value) is not float or not math.isfinite(value):
        raise ValueError(f"its “{name[:80]}” is no finite number")
    return value


def _numbers(values: Mapping[str, Any], name: str, count: int) -> tuple[float, ...]:
    found = values.get(name)
    if not isinstance(found, list) or len(found) != count:
        raise ValueError(f"its “{name}” is not {count} numbers")
    numbers = [_number({name: value}, name) for value in found]
    return tuple(0.0 if number is None else number for number in numbers)


def _id_of(message: Mapping[str, Any]) -> int | None:
    number = message.get("id")
    return number if type(number) is int and abs(number) <= MAX_ID else None


def _is_deeper(value: Any, depth: int) -> bool:
    """Whether lists and objects are nested more than `depth` deep; without recursion, which has a depth of its own."""
    level = [value]
    while level and depth:
        depth -= 1
        level = [
            entry
            for outer in level
            for entry in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(entry, (dict, list))
        ]
    return bool(level)


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number of JSON")


_DECODER: Final = json.JSONDecoder(parse_constant=_refuse_constant)
