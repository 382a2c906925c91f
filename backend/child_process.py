"""Starts other programs: the only module of the backend that does.

On Windows, a worker that Blender started has no console, so every program that it starts would open a console window of
its own; the flag `CREATE_NO_WINDOW` prevents that. What a program prints is decoded as UTF-8, and a byte that is no
UTF-8 becomes the replacement character instead of an exception.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

LOWER_PRIORITY: Final = 10
"""Niceness of long work: posing, and Blender itself, come first."""
_KILLED: Final = "it was killed, perhaps because memory ran out"
_CRASHED: Final = "it crashed"
_DLL_MISSING: Final = "a DLL that it needs is missing"
_DLL_MISMATCH: Final = "a DLL that it needs has another version"
EXIT_REASONS: Final[Mapping[int, str]] = {
    -9: _KILLED,
    -11: _CRASHED,
    # A shell, and therefore `ssh`, adds 128 to the number of the signal that ended its command.
    137: _KILLED,
    139: _CRASHED,
    # Windows: NTSTATUS values, [MS-ERREF] 2.3.1; 0xC06D…, 0xE06D…: codes of Visual C++.
    0x40010004: "Windows was shutting down or the user signed out",
    0x80000003: "it stopped at a failed assertion",
    0xC0000005: "it crashed: access violation",
    0xC0000017: "memory ran out",
    0xC000001D: "it crashed: this processor lacks an instruction that it needs",
    0xC0000022: "Windows denied it access to a file that it needs",
    0xC000007B: "a DLL that it needs is damaged or made for another kind of processor",
    0xC0000094: "it crashed: division by zero",
    0xC00000FD: "it crashed: stack overflow",
    0xC000012D: "memory ran out: the page file is too small",
    0xC0000135: _DLL_MISSING,
    0xC0000138: _DLL_MISMATCH,
    0xC0000139: _DLL_MISMATCH,
    0xC000013A: "it was interrupted by Ctrl-C, or its console was closed",
    0xC0000142: "a DLL that it needs could not be initialised",
    0xC0000374: "it crashed: heap corruption",
    0xC0000409: "it crashed: its own code found a fatal error and aborted",
    0xC0000428: "Windows could not verify the signature of a file that it needs",
    0xC06D007E: _DLL_MISSING,
    0xC06D007F: _DLL_MISMATCH,
    0xE06D7363: "it crashed: C++ exception that nothing handled",
}
"""Exit code as Python states it (negative for a signal) -> why the program ended."""


def start(
    command: Sequence[str],
    cwd: str | Path | None = None,
    environment: Mapping[str, str] | None = None,
    low_priority: bool = False,
    **options: Any,
) -> subprocess.Popen[Any]:
    """Start a program with pipes for its stdin and stdout; its stderr is that of this process.

    `environment` None: that of this process. `low_priority`: it gets the processor after programs of normal priority.
    `options` go to `subprocess.Popen` and may replace the pipes; with `text=True` the pipes carry decoded text. Raises
    an `OSError`.
    """
    if options.pop("text", False):
        options = {"encoding": "utf-8", "errors": "replace"} | options
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE} | options
    process = subprocess.Popen(
        _located(command, environment),
        cwd=cwd,
        env=None if environment is None else dict(environment),
        **_no_window(low_priority),
        **options,
    )
    if low_priority and hasattr(os, "setpriority"):
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, process.pid, LOWER_PRIORITY)
    return process


def run(
    command: Sequence[str],
    timeout: float | None,
    cwd: str | Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program without stdin and wait until it has ended: its exit code, `stdout` and `stderr`.

    `timeout`: seconds, or None for no limit; a program that takes longer is ended. Raises an `OSError` if it cannot be
    started, and `subprocess.TimeoutExpired`.
    """
    return subprocess.run(
        _located(command, environment),
        cwd=cwd,
        env=None if environment is None else dict(environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=timeout,
        **_no_window(False),
    )


def find_program(name: str, environment: Mapping[str, str] | None = None) -> str | None:
    """The full path of a program from the PATH, or None; a `name` that has a folder is returned as it is.

    Unlike Windows, and unlike `shutil.which` there, it never looks in the current folder, nor in one that the PATH
    names relative to it. That folder may be a stranger's, with a program in it.
    """
    if any(separator and separator in name for separator in (os.sep, os.altsep)):
        return name
    names = [name]
    if os.name == "nt" and not Path(name).suffix:
        names = [f"{name}.exe", f"{name}.com"]
    for folder in filter(Path.is_absolute, map(Path, os.get_exec_path(environment))):
        for path in (folder / name for name in names):
            if os.access(path, os.X_OK) and path.is_file():
                return str(path)
    return None


def _located(command: Sequence[str], environment: Mapping[str, str] | None) -> list[str]:
    """A command with the full path of its program. Raises a `FileNotFoundError`."""
    program = find_program(command[0], environment)
    if program is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), command[0])
    return [program, *command[1:]]


def describe_exit(code: int) -> str:
    """Why a program ended unexpectedly, for a sentence in brackets.

    `code`: `returncode` of `subprocess`, which is negative for a signal, and on Windows the 32 bits that the system
    gives, taken as an unsigned number; a negative number below -255 is taken as the same bits with a sign.
    """
    if code < -255:
        code &= 0xFFFFFFFF
    if reason := EXIT_REASONS.get(code):
        return reason
    if code < 0:
        return f"signal {-code}"
    return f"exit code {code}" if code < 0x40000000 else f"exit code 0x{code:08X}"


def _no_window(low_priority: bool) -> dict[str, Any]:
    if sys.platform != "win32":
        return {}
    priority = subprocess.BELOW_NORMAL_PRIORITY_CLASS if low_priority else 0
    return {"creationflags": subprocess.CREATE_NO_WINDOW | priority}
