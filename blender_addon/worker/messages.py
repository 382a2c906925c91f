"""The worker's messages as dataclasses. Each is checked once, when it arrives.

`from_message` raises a KeyError, TypeError or ValueError for a message that does not follow the protocol.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np


@dataclass(frozen=True)
class WorkerInfo:
    """The worker's answer to `hello`."""

    schema: int
    """Version of the protocol."""
    array_folders: tuple[str, ...]
    """The folders where the worker writes arrays; none if the arrays are part of the messages."""

    @classmethod
    def from_answer(cls, answer: Mapping[str, Any]) -> WorkerInfo:
        return cls(int(answer["schema"]), tuple(str(folder) for folder in answer.get("folders", ())))


@dataclass(frozen=True)
class Answer:
    """The answer to the request `number`: `result`, or `error` with a sentence for the user."""

    number: int
    result: Any = None
    error: str | None = None
    traceback: str | None = None
    """Of a defect in the worker, otherwise None."""


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

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> JobProgress:
        eta, rate = params.get("eta"), params.get("rate")
        return cls(
            str(params["stage"]),
            int(params["done"]),
            int(params["total"]),
            None if eta is None else float(eta),
            None if rate is None else float(rate),
            dict(params.get("metrics") or {}),
        )


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
class JobDone:
    """The job has succeeded."""

    result: dict[str, Any]
    """Its keys depend on the kind of the job."""


@dataclass(frozen=True)
class JobFailed:
    """The job has failed or was cancelled, with a sentence for the user."""

    message: str
    cancelled: bool


JobEvent = JobProgress | JobPreview | JobMessage | JobDone | JobFailed


@dataclass(frozen=True)
class JobNotification:
    """An event of the job that the worker calls `job`."""

    job: str
    event: JobEvent


_EVENTS: Final = {
    "job.progress": JobProgress.from_params,
    "job.preview": lambda params: JobPreview(params["image"]),
    "job.message": lambda params: JobMessage(params["text"]),
    "job.done": lambda params: JobDone(params["result"]),
    "job.failed": lambda params: JobFailed(params["message"], cancelled=False),
    "job.cancelled": lambda params: JobFailed(params["message"], cancelled=True),
}


def from_message(message: Mapping[str, Any]) -> Answer | JobNotification | None:
    """A decoded JSON-RPC message with its arrays. None for a notification that this client does not know."""
    if "id" in message:
        if error := message.get("error"):
            return Answer(message["id"], error=error["message"], traceback=error.get("data"))
        return Answer(message["id"], result=message["result"])
    make_event = _EVENTS.get(message.get("method", ""))
    if make_event is None:
        return None
    params = message["params"]
    return JobNotification(str(params["job"]), make_event(params))
