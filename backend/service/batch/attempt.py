"""A stage that has begun and not finished: what the next attempt may continue, and how much time went into it."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from pathlib import Path

from ...errors import EffigyError
from ...reading import read_json, reading
from ...storage import remove_file, write_beside
from .stages import ClipFiles


class Attempt:
    """A note beside a stage that has not finished: the key that it had, and how many seconds went into it so far."""

    def __init__(self, path: Path, key: str) -> None:
        self._path, self._key = path, key
        self.seconds = 0.0
        self.is_continued = False
        """Whether an earlier attempt had the same inputs and settings."""
        with suppress(EffigyError), reading(path, "note", "delete it"):
            content = read_json(path, "note", "delete it")
            if content["key"] == key and math.isfinite(content["seconds"]):
                self.seconds, self.is_continued = float(content["seconds"]), True
        self._write()

    def may_resume(self, files: ClipFiles) -> bool:
        """Whether a stopped training can be continued. A checkpoint of other inputs or settings is removed."""
        if self.is_continued and files.checkpoint.is_file():
            return True
        remove_file(files.checkpoint)
        return False

    def add(self, seconds: float) -> float:
        """Add the seconds of this attempt to the note; returns the seconds of all attempts."""
        self.seconds += seconds
        self._write()
        return self.seconds

    def forget(self) -> None:
        remove_file(self._path)

    def _write(self) -> None:
        with write_beside(self._path) as temporary:
            temporary.write_text(json.dumps({"key": self._key, "seconds": self.seconds}) + "\n", "utf-8")
