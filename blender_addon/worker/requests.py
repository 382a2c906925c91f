"""Requests to the worker and the state of one connection, as the client keeps them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from ..errors import EffigyError
from .connection import Connection
from .jobs import Job
from .messages import Answer, WorkerInfo

SCHEMA: Final = 2
"""The version of the protocol that this client follows. Since 2, it makes the folders for arrays and names them in
`hello`."""
INSTALL_AGAIN: Final = "press Install Backend in Effigy's preferences, or update the backend where the worker runs."
REPEATS: Final = 2
"""How often a request is sent again because the worker ended before it had answered. A request that itself ends the
worker, such as an image for which memory does not suffice, must not do so forever."""


class WorkerError(EffigyError):
    """The worker refused a request or has ended. `data` is the traceback if the reason is a defect in the worker."""

    def __init__(self, message: str, data: str | None = None) -> None:
        super().__init__(message)
        self.data = data


class WorkerEnded(WorkerError):
    """The worker ended, or the connection to it was lost, before it answered."""


@dataclass(eq=False)
class Request:
    """Two requests are never equal: their parameters may hold arrays, which have no single truth when compared."""

    method: str
    params: dict[str, Any]
    on_result: Callable[[Any], None] | None
    on_error: Callable[[WorkerError], None] | None
    latest: str | None = None
    answered: threading.Event | None = None
    """Only of a blocking call, whose answer does not go through `pump`: set when the answer has arrived."""
    result: Any = None
    error: WorkerError | None = None
    state: State | None = None
    """That of the connection over which it was sent."""
    repeats_left: int = REPEATS

    @property
    def repeatable(self) -> bool:
        """Whether it may be sent again: it is a question, or writes a file that a repetition writes alike."""
        return self.repeats_left > 0 and not self.method.startswith(("hello", "job.", "file."))


@dataclass
class Latest:
    """The requests with one `latest` key."""

    sent: Request
    waiting: Request | None = None


@dataclass
class State:
    """The state of one connection, which ends with it."""

    connection: Connection | None = None
    pending: dict[int, Request] = field(default_factory=dict)
    latest: dict[str, Latest] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)
    greeted: bool = False
    """Whether the worker has answered at all."""
    hello: Request | None = None
    """The first request."""
    refused: str | None = None
    """Why this worker cannot be used, as a sentence."""


def examine_hello(answer: Answer) -> tuple[WorkerInfo | None, str | None]:
    """(About the worker that answers `hello` so; why it cannot be used, as a sentence), each None if there is none."""
    if answer.error is not None:
        return (
            None,
            f"The backend refuses this extension, perhaps because it is older ({answer.error}): {INSTALL_AGAIN}",
        )
    try:
        info = WorkerInfo.from_answer(answer.result)
    except ValueError as error:
        return None, f"The program that answers is no worker of Effigy ({error}): {INSTALL_AGAIN}"
    if info.schema > SCHEMA:
        return info, "The backend is newer than this extension: update the extension, or install its backend."
    if info.schema < SCHEMA:
        return info, f"The backend is older than this extension: {INSTALL_AGAIN}"
    return info, None
