"""Runs a row of `bench.faults` where it can do no harm.

bubblewrap (https://github.com/containers/bubblewrap) gives the row and all its programs a disk that is read-only except
for one temporary folder, an unprivileged user without capabilities, no network but loopback, and process numbers of its
own, so that nothing outlives the row. Linux only.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from bench.fault_rows.outcome import Outcome

ROOT: Final = Path(__file__).resolve().parents[1]
SMALL_DISK_BYTES: Final = 96 << 20
NOBODY: Final = "65534"


def missing_sandbox() -> str | None:
    """Why no row can run here, as a sentence; None if rows can run."""
    if sys.platform != "linux":
        return "The faults are tried on Linux only: their sandbox, bubblewrap, needs Linux."
    if shutil.which("bwrap") is None:
        return "The faults are tried inside bubblewrap: install Debian's package bubblewrap (apt install bubblewrap)."
    tried = subprocess.run([*_sandbox(Path(tempfile.gettempdir())), "true"], capture_output=True, text=True)
    if tried.returncode:
        return f"bubblewrap does not work on this system ({tried.stderr.strip()}): allow unprivileged user namespaces."
    return None


def run_row(name: str, seed: int, count: int, python: Path, backend_python: Path) -> Outcome:
    """The outcome of the row `name`. A row that ends by itself without an outcome has failed."""
    with tempfile.TemporaryDirectory(prefix="effigy-faults-", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        for part in ("scratch", "small_disk", "home"):
            (folder / part).mkdir()
        _copy_kernels(backend_python, folder / "home")
        command = [str(python), "-m", "bench.fault_rows.run_row", name, str(seed), str(count), str(folder)]
        code = subprocess.run([*_sandbox(folder), *command], env=_environment(folder, backend_python)).returncode
        try:
            return Outcome(**json.loads((folder / "outcome.json").read_text("utf-8")))
        except FileNotFoundError:
            return Outcome(count, [f"the row itself ended with exit code {code}"])


def _sandbox(folder: Path) -> list[str]:
    """The beginning of a command that runs with `folder` as the only writable one."""
    return [
        "bwrap",
        *("--ro-bind", "/", "/"),
        *("--dev", "/dev"),
        *("--proc", "/proc"),
        *("--tmpfs", "/tmp"),
        # The checkout may itself lie below /tmp.
        *("--ro-bind", str(ROOT), str(ROOT)),
        *("--bind", str(folder), str(folder)),
        *("--size", str(SMALL_DISK_BYTES), "--tmpfs", str(folder / "small_disk")),
        *("--unshare-user", "--uid", NOBODY, "--gid", NOBODY, "--cap-drop", "ALL"),
        *("--unshare-net", "--unshare-pid", "--unshare-ipc", "--die-with-parent"),
        *("--chdir", str(ROOT)),
    ]


def _environment(folder: Path, backend_python: Path) -> dict[str, str]:
    kept = ("PATH", "LANG", "LC_ALL", "TZ", "OMP_NUM_THREADS", "LD_LIBRARY_PATH")
    home = str(folder / "home")
    return {name: os.environ[name] for name in kept if name in os.environ} | {
        "HOME": home,
        "XDG_CACHE_HOME": f"{home}/.cache",
        "TMPDIR": "/tmp",
        "PYTHONDONTWRITEBYTECODE": "1",
        "EFFIGY_BACKEND_PYTHON": str(backend_python),
        "EFFIGY_FAULT_SANDBOX": str(folder),
    }


def _copy_kernels(backend_python: Path, home: Path) -> None:
    """Copies the compiled kernels of this user, which would otherwise be compiled again in every row."""
    found = subprocess.run(
        [str(backend_python), "-c", "from backend.splatting.jit import cache_folder; print(cache_folder())"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    kernels = Path(found.stdout.strip())
    if kernels.is_dir():
        shutil.copytree(kernels, home / ".cache" / "effigy" / kernels.name)
