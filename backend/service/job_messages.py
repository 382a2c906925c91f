"""The messages between the worker and a job's process, one JSON object a line over its stdin and stdout."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

from .messages import NoMessage, decode

PROGRESS: Final = "progress"
PREVIEW: Final = "preview"
MESSAGE: Final = "message"
FACE: Final = "face"
DONE: Final = "done"
FAILED: Final = "failed"
CANCELLED: Final = "cancelled"
LAST_EVENTS: Final = (DONE, FAILED, CANCELLED)
"""One of these is the last event of a job."""
FIELDS: Final[dict[str, dict[str, type]]] = {
    PROGRESS: {"stage": str, "done": int, "total": int},
    PREVIEW: {"image": dict},
    MESSAGE: {"text": str},
    FACE: {"time": float, "age": float},
    DONE: {"result": dict},
    FAILED: {"message": str},
    CANCELLED: {"message": str},
}
"""Name of an event -> what it has, by name and type."""

CANCEL: Final = {"cancel": True}
"""The worker's request to stop."""


@dataclass(frozen=True)
class JobOrder:
    """What a job's process is to do: the first line that it reads."""

    kind: str
    params: dict[str, Any]
    """The parameters of the job, as `job.start` carries them."""
    inline: bool
    """Whether arrays go inside messages (`backend.service.protocol`)."""
    folders: list[str]
    """The client's folders for arrays; none where nobody looks at previews."""
    previews: bool = True
    """Whether someone looks at previews."""

    def to_message(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_message(cls, message: dict[str, Any]) -> JobOrder:
        return cls(**message)


@dataclass(frozen=True)
class JobEvent:
    """What a job's process reports; the worker passes it on to Blender as `job.<name>`."""

    name: str
    fields: dict[str, Any]
    """What `job.<name>` carries beside the job's own name."""

    def to_message(self) -> dict[str, Any]:
        return {"event": self.name} | self.fields

    @classmethod
    def from_line(cls, line: bytes) -> JobEvent:
        """The event of a line. Raises a `NoMessage`."""
        message = decode(line)
        name = message.pop("event", None)
        if not isinstance(name, str) or name not in FIELDS:
            raise NoMessage("it names no event of a job")
        for field, kind in FIELDS[name].items():
            if type(message.get(field)) is not kind:
                raise NoMessage(f"its “{field}” is missing or of the wrong type")
        return cls(name, message)

    @classmethod
    def with_sentence(cls, name: str, sentence: str) -> JobEvent:
        """A failure or a cancellation, in words."""
        return cls(name, {"message": sentence})
