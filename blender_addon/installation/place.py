"""Where the backend's environments lie, which of them is used, and which can be removed.

    <root>/current.json          names the environment that is used
    <root>/env-3f0a/             a virtual environment; its stamp `effigy-backend.json` is written last
    <root>/downloads/, tmp/      pip's cache and temporary files while an installation runs
    <root>/installation.lock     locked by the process that installs

An installation makes a new environment beside the one that is used, and rewrites `current.json` when the new one has
passed its check. The environment is not renamed into place: a virtual environment contains its own path in its scripts,
Windows renames no folder whose files a running worker has open, and replacing one small file is atomic everywhere.

A worker holds a shared lock on the stamp of its environment (backend/service/held_environment.py), so that no other
Blender removes an environment under a running training. On Windows open files have the same effect.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from ..errors import EffigyError
from ..output_lock import OutputInUseError, hold

SCHEMA: Final = 1
STAMP: Final = "effigy-backend.json"
REQUIREMENT_FILES: Final = ("backend.lock", "torch.lock", "torch-cuda.lock", "warp.lock")
"""The package lists that environments are made from. When they change, the environment is outdated."""
_POINTER: Final = "current.json"
_LOCK: Final = "installation.lock"
_ENVIRONMENT: Final = re.compile(r"env-[0-9a-f]{4}")
_REMOVED: Final = re.compile(r"removed-[0-9a-f]{4}")
"""An environment is renamed before it is deleted, so that nobody finds one that is deleted in part."""
_REPLACE_TRIES: Final = 20
"""On Windows a file that another process is just reading cannot be replaced. 20 tries take two seconds."""


@dataclass(frozen=True)
class Stamp:
    """Written into a complete environment."""

    requirements: str
    """`hash_of` the package lists that it was made from."""
    torch: str
    """PyTorch build: `cpu`, or the name of a CUDA build."""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Stamp:
        return cls(str(data.get("requirements", "")), str(data.get("torch", "")))


@dataclass(frozen=True)
class Environments:
    """The environments of one user and one version of Blender."""

    root: Path
    """The folder that contains them. Only Effigy writes there."""
    former: Path
    """The environment that earlier versions of Effigy made, in a place of its own. It is used until it is replaced."""

    @property
    def downloads(self) -> Path:
        return self.root / "downloads"

    @property
    def temporary(self) -> Path:
        return self.root / "tmp"

    def current(self) -> Path | None:
        """The folder of the environment that is used, or None if no installation has been completed."""
        name = self._named()
        if name and read_stamp(self.root / name):
            return self.root / name
        return self.former if read_stamp(self.former) else None

    def _named(self) -> str | None:
        """The name of the environment in `current.json`. Empty if it names none; None if the file cannot be read now,
        as while a virus scanner has it open, or if a newer version of Effigy has written it.
        """
        try:
            data = json.loads((self.root / _POINTER).read_text("utf-8"))
            if data["schema"] != SCHEMA:
                return None
            name = str(data["environment"])
        except FileNotFoundError:
            return ""
        except OSError:
            return None
        except (ValueError, KeyError, TypeError, RecursionError):
            return ""
        # The name comes from a file, so it must be one that `fresh_folder` could have made.
        return name if _ENVIRONMENT.fullmatch(name) else ""

    def python(self) -> Path | None:
        """The interpreter of the environment that is used. None if there is no such environment, or if the Python of
        Blender that it was made from is gone.
        """
        folder = self.current()
        # `exists` follows the symbolic link to the Python that the environment was made from.
        return python if folder and (python := python_of(folder)).exists() else None

    def fresh_folder(self) -> Path:
        """A path for a new environment. The folder does not exist."""
        while True:
            # A short name, because Windows limits the length of paths.
            folder = self.root / f"env-{secrets.token_hex(2)}"
            if not folder.exists():
                return folder

    def use(self, folder: Path) -> None:
        """Makes the complete environment in `folder` the one that is used, in one atomic step."""
        text = json.dumps({"schema": SCHEMA, "environment": folder.name})
        beside = self.root / f"{_POINTER}.new"
        with open(beside, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        for attempt in range(_REPLACE_TRIES):
            try:
                beside.replace(self.root / _POINTER)
            except PermissionError:
                if attempt == _REPLACE_TRIES - 1:
                    raise
                time.sleep(0.1)
            else:
                return

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes from installing (`output_lock`). Raises an `EffigyError` at once if one is installing.
        The lock ends with this process, however it ends.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with ExitStack() as lock:
            try:
                lock.enter_context(hold(self.root, "Install Backend", lock_file=self.root / _LOCK))
            except OutputInUseError as error:
                by = f" ({error.owner})" if error.owner else ""
                raise EffigyError(
                    f"Another Blender is installing the backend in {self.root}{by}: wait until it has finished, then "
                    "use that backend, or install again."
                ) from error
            yield

    def remove_unused(self) -> None:
        """Deletes what killed installations left, and environments that are neither current nor run by a worker.

        Call it while `locked`. Only folders that an installation made are deleted: they lie in `root`, have a name of
        `fresh_folder`'s form and are virtual environments, or empty. What cannot be deleted now is left for later, and
        so are all environments while it is not known which one is used.
        """
        named, current = self._named(), self.current()
        with suppress(OSError):
            for entry in list(os.scandir(self.root)):
                folder = self.root / entry.name
                if not entry.is_dir(follow_symlinks=False) or entry.name == named:
                    continue
                if _REMOVED.fullmatch(entry.name):
                    shutil.rmtree(folder, ignore_errors=True)
                elif _ENVIRONMENT.fullmatch(entry.name) and named is not None:
                    self._remove(folder)
        shutil.rmtree(self.temporary, ignore_errors=True)
        if current not in (None, self.former) and read_stamp(self.former) and not self.former.is_symlink():
            self._remove(self.former)

    def _remove(self, folder: Path) -> None:
        """Deletes an environment, unless a worker runs in it."""
        is_ours = (folder / "pyvenv.cfg").is_file() or not any(folder.iterdir())
        if not is_ours or _is_held(folder):
            return
        removed = self.root / f"removed-{secrets.token_hex(2)}"
        # On Windows this fails while a program has a file of the environment open; everywhere if the former environment
        # lies on another disk, where it is left alone.
        with suppress(OSError):
            folder.rename(removed)
            shutil.rmtree(removed, ignore_errors=True)


def python_of(folder: Path) -> Path:
    """The interpreter of the environment in `folder`, whether it exists or not."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def read_stamp(folder: Path) -> Stamp | None:
    """The stamp of the environment in `folder`, or None if no environment was completed there."""
    try:
        data = json.loads((folder / STAMP).read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return Stamp.from_json(data) if isinstance(data, dict) and data.get("schema") == SCHEMA else None


def write_stamp(folder: Path, requirements: Path, torch: str) -> None:
    """Marks the environment in `folder` as complete."""
    text = json.dumps({"schema": SCHEMA, "requirements": hash_of(requirements), "torch": torch})
    (folder / STAMP).write_text(text, "utf-8")


def is_outdated(folder: Path, requirements: Path) -> bool:
    """Whether a complete environment was made from other package lists than those in `requirements`."""
    stamp = read_stamp(folder)
    return stamp is not None and stamp.requirements != hash_of(requirements)


def hash_of(requirements: Path) -> str:
    """SHA-256 over the package lists in the folder `requirements`, independent of their line ends."""
    digest = hashlib.sha256()
    for name in REQUIREMENT_FILES:
        digest.update((requirements / name).read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()


def _lock(file: IO[bytes]) -> None:
    """Locks a file for this process alone until it is closed. Raises an `OSError` if another process has locked it."""
    if sys.platform == "win32":
        import msvcrt

        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is_held(folder: Path) -> bool:
    """Whether a worker holds the environment. False on Windows, where open files keep it from being removed."""
    if sys.platform == "win32":
        return False
    try:
        # Network drives (NFS) lock a file for one process alone only if it is open for writing.
        with open(folder / STAMP, "r+b") as file:
            _lock(file)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
