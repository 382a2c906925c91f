"""What rows of the backend share: commands in processes of their own, and a person's capture, track and avatar."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.fault_sandbox import ROOT

FILES: Final = ROOT / "tests" / "files_of_0_1"
CLIP: Final = ROOT / "assets" / "demo.mp4"
LONGEST: Final = 300.0
"""Seconds after which a command counts as hanging: the machine may be shared."""


@dataclass
class Ended:
    """A command that has ended."""

    code: int
    """Negative: the number of the signal that ended it."""
    said: str
    """Its stdout."""
    error: str
    """Its stderr."""

    def no_sentence(self) -> str | None:
        """Why what it printed is no sentence with exit code 2; None if it is one."""
        lines = [line for line in self.error.splitlines() if line]
        if self.code != 2:
            return f"exit code {self.code}: {self.error[-300:]}"
        if "Traceback" in self.error or len(lines) != 1 or not lines[0].rstrip().endswith((".", "?")):
            return f"no sentence: {self.error[-300:]}"
        return None


class Running:
    """A command that was started."""

    def __init__(self, server: Commands, pid: int, out: Path) -> None:
        self._server, self.pid, self._out = server, pid, out

    def ended(self) -> bool:
        return self.pid in self._server.codes

    def send(self, number: int) -> None:
        if not self.ended():
            os.kill(self.pid, number)

    def wait(self, seconds: float = LONGEST) -> Ended:
        until = time.monotonic() + seconds
        while not self.ended():
            if time.monotonic() > until:
                self.send(signal.SIGKILL)
                raise TimeoutError(f"a command hangs for {seconds:.0f} s")
            time.sleep(0.005)
        said, error = (self._out.with_suffix(suffix).read_text("utf-8", "replace") for suffix in (".out", ".err"))
        return Ended(self._server.codes[self.pid], said, error)


class Commands:
    """Starts commands through `bench.fault_rows._command_server`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._count = folder, 0
        self.codes: dict[int, int] = {}
        self._started: list[int] = []
        self._changed = threading.Condition()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.fault_rows._command_server"],
            cwd=ROOT,
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "EFFIGY_USER": str(folder / "user")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        threading.Thread(target=self._read, daemon=True).start()

    def start(self, *arguments: object) -> Running:
        self._count += 1
        out = self._folder / f"command-{self._count}.out"
        assert self._process.stdin is not None
        order = {"arguments": [str(each) for each in arguments], "out": str(out.with_suffix(""))}
        with self._changed:
            before = len(self._started)
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            if not self._changed.wait_for(lambda: len(self._started) > before, LONGEST):
                raise TimeoutError("no command could be started")
            return Running(self, self._started[-1], out)

    def run(self, *arguments: object) -> Ended:
        return self.start(*arguments).wait()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            message = json.loads(line)
            with self._changed:
                if "code" in message:
                    self.codes[message["pid"]] = message["code"]
                elif "pid" in message:
                    self._started.append(message["pid"])
                self._changed.notify_all()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


@contextmanager
def commands(folder: Path) -> Iterator[Commands]:
    server = Commands(folder)
    try:
        user = folder / "user"
        user.mkdir(exist_ok=True)
        head = FILES / "small_head.npz"
        from backend.head.formats import load_head

        (user / "heads.json").write_text(json.dumps({load_head(head).fingerprint: str(head)}), "utf-8")
        yield server
    finally:
        server.close()


def copied_capture(folder: Path) -> Path:
    """A tracked capture of 10 frames of 128 pixels, whose head model is small."""
    return Path(shutil.copytree(FILES / "person.capture", folder / "person.capture"))


def contents(path: Path) -> dict[str, str]:
    """The files of a file or folder with their hashes, locks left out."""
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    return {
        str(file.relative_to(path.parent)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
        if file.is_file() and not file.name.endswith(".lock")
    }


def hidden(folder: Path) -> list[str]:
    """Temporaries and locks that lie around."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob(".*"))
