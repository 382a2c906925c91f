"""The three virtual environments of a checkout, and how they are made.

- `.venv` runs the backend.
- `.venv-blender` stands for Blender's own Python. It is separate from `.venv`, as on a user's machine, so that the
  extension cannot import torch by accident and each side keeps its own version of numpy.
- `.venv-check` holds the linter, the type checker and the import checker. It is made only for `check` and `test`.

Each environment is made from lists of exact versions in requirements/. A stamp file inside it records the hash of these
lists, so that a second set-up takes no time and needs no network. An environment whose stamp is missing (its
installation was interrupted) or differs (the lists have changed) is made again from nothing.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # Python 3.10 lacks it, and shall get as far as `check_python`.
    from typing import Self

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"
PYTHON_VERSIONS = ((3, 11), (3, 13))
"""The Python versions of Blender 5.0 and 5.3; the backend and the extension are developed on the same version."""

BACKEND_LIBRARIES = {"libEGL.so.1": "libegl1", "libGLESv2.so.2": "libgles2"}
"""Libraries that MediaPipe links on Linux, even when it runs on the CPU -> their Debian packages."""

BLENDER_LIBRARIES = {
    "libX11.so.6": "libx11-6",
    "libXrender.so.1": "libxrender1",
    "libXfixes.so.3": "libxfixes3",
    "libXi.so.6": "libxi6",
    "libxkbcommon.so.0": "libxkbcommon0",
    "libSM.so.6": "libsm6",
    "libGL.so.1": "libgl1",
    "libEGL.so.1": "libegl1",
}
"""Libraries that the bpy wheel links on Linux -> their Debian packages. Without libEGL its first render ends the
process."""

TEST_PROGRAMS = {"sshd": "openssh-server", "bwrap": "bubblewrap", "chromium": "chromium"}
"""Programs that some tests start -> their Debian packages. A test whose program is missing is skipped and says so."""


class BuildError(Exception):
    """A failure whose message is one sentence for the person at the terminal: what went wrong and what to do."""


class Status:
    """A status line with the current step and the elapsed time, updated by a thread while the `with` block runs.

    On a terminal the line is rewritten twice a second; in a log file a new line is printed every ten seconds.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._started = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        if sys.stdout.isatty():
            print("\r\x1b[K", end="", flush=True)

    def _tick(self) -> None:
        rewritten = sys.stdout.isatty()
        while not self._ended.wait(0.5 if rewritten else 10):
            line = f"  {self.text} ({time.monotonic() - self._started:.0f} s)"
            if rewritten:
                print("\r\x1b[K" + line[: shutil.get_terminal_size().columns - 1], end="", flush=True)
            else:
                print(line, flush=True)


@dataclass(frozen=True)
class Environment:
    """One virtual environment of this checkout."""

    folder: Path
    lists: tuple[str, ...]
    """Names of the files in requirements/ that define its packages."""
    libraries: dict[str, str]
    """System library that its packages link on Linux -> the Debian package that holds it."""
    download: str
    """How much its installation downloads, as a phrase for the terminal."""
    install: Callable[[Environment, Status], None]
    """Installs the packages of the lists into the new, empty environment."""
    python_version: tuple[int, int] = (sys.version_info.major, sys.version_info.minor)
    """Version of the Python interpreter in the environment."""

    @property
    def python(self) -> Path:
        return self.folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    @property
    def stamp(self) -> Path:
        return self.folder / "effigy-setup.json"

    def wanted_stamp(self) -> dict[str, str]:
        digest = hashlib.sha256()
        for name in self.lists:
            # Git may check out the same commit with other line endings.
            digest.update((REQUIREMENTS / name).read_bytes().replace(b"\r\n", b"\n"))
        return {"python": "{}.{}".format(*self.python_version), "requirements": digest.hexdigest()}

    def is_made(self) -> bool:
        try:
            return json.loads(self.stamp.read_text("utf-8")) == self.wanted_stamp() and self.python.exists()
        except (OSError, ValueError):
            return False


def set_up(environment: Environment) -> None:
    """Make the environment, unless it exists and its stamp matches its lists."""
    if environment.is_made():
        install_system_packages(environment.libraries)
        return
    _refuse_link(environment.folder)
    install_system_packages(environment.libraries)
    started = time.monotonic()
    print(f"Setting up {environment.folder.name} (once; {environment.download})", flush=True)
    with Status("making the environment") as status:
        # `--clear`: packages of an interrupted installation or of an older list must not remain.
        _run_quietly(
            [_base_python(environment.python_version), "-m", "venv", "--clear", str(environment.folder)],
            f"The environment {environment.folder.name} could not be made",
        )
        environment.install(environment, status)
    environment.stamp.write_text(json.dumps(environment.wanted_stamp()), "utf-8")
    print(f"Set-up of {environment.folder.name} finished in {time.monotonic() - started:.0f} s.", flush=True)


def _refuse_link(folder: Path) -> None:
    """Making an environment again empties its folder. Through a link, or a junction of Windows, that would be the
    folder of another checkout.
    """
    if folder.is_symlink() or folder.resolve() != folder.parent.resolve() / folder.name:
        raise BuildError(
            f"{folder.name} is a link to {folder.resolve()}, whose packages are not those of this checkout's lists: "
            "remove the link, then run again, which makes an environment here."
        )


def check_python() -> None:
    if sys.version_info[:2] not in PYTHON_VERSIONS:
        wanted = " or ".join(f"{major}.{minor}" for major, minor in PYTHON_VERSIONS)
        raise BuildError(
            f"Effigy is built with Python {wanted}, and this is Python {sys.version_info.major}."
            f"{sys.version_info.minor}: run `python{wanted.split()[0]} build.py …`."
        )


def _base_python(version: tuple[int, int]) -> str:
    """The interpreter that creates an environment: the running one, or one of another version from the PATH or
    pyenv.
    """
    if version == tuple(sys.version_info[:2]):
        return sys.executable
    name = "python{}.{}".format(*version)
    # pyenv puts a launcher on the PATH also for versions that are not chosen at the moment; it fails when it is run.
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    for command in (shutil.which(name), *map(str, sorted(pyenv.glob(f"versions/*/bin/{name}")))):
        if command is not None and subprocess.run([command, "-c", ""], capture_output=True).returncode == 0:
            return command
    raise BuildError(
        f"This version of Blender needs Python {version[0]}.{version[1]}, and {name} was not found: install it, "
        "or test another version of Blender."
    )


def _install_backend(environment: Environment, status: Status) -> None:
    for name in ("backend.lock", "warp.lock", "batch.lock"):
        pip(
            environment,
            status,
            "install",
            ["--no-deps", "--require-hashes", "--only-binary", ":all:", "-r", str(REQUIREMENTS / name)],
        )
    pip(environment, status, "install", ["-r", str(REQUIREMENTS / "torch.txt")])
    status.text = "looking for a GPU"
    if _has_cuda(environment):
        pip(environment, status, "install", ["--no-deps", "--require-hashes", "-r", str(REQUIREMENTS / "cuda.lock")])


def _install_locked(environment: Environment, status: Status) -> None:
    pip(
        environment,
        status,
        "install",
        ["--no-deps", "--require-hashes", "--only-binary", ":all:", "-r", str(REQUIREMENTS / environment.lists[0])],
    )


BACKEND = Environment(
    ROOT / ".venv",
    ("backend.lock", "warp.lock", "batch.lock", "torch.txt", "cuda.lock"),
    BACKEND_LIBRARIES,
    "about 0.8 GB are downloaded",
    _install_backend,
)
BLENDER_DOWNLOAD = "about 0.4 GB are downloaded"
BLENDER = Environment(
    ROOT / ".venv-blender",
    ("blender-{}.{}.lock".format(*sys.version_info),),
    BLENDER_LIBRARIES,
    BLENDER_DOWNLOAD,
    _install_locked,
)

CHECK = Environment(ROOT / ".venv-check", ("check.lock",), {}, "about 0.1 GB are downloaded", _install_locked)

BLENDER_VERSIONS = {
    "4.2.23": ("blender-4.2.lock", (3, 11)),
    "5.0.1": ("blender-3.11.lock", (3, 11)),
    "5.2.3": ("blender-5.2.lock", (3, 13)),
    "5.3.0": ("blender-3.13.lock", (3, 13)),
}
"""Choices of `test --bpy`: version of the bpy wheel -> its list of packages and the Python that it is built for."""


def blender_of(version: str) -> Environment:
    """The environment for one version of bpy; this is `.venv-blender` itself where the version is the same."""
    if version not in BLENDER_VERSIONS:
        raise BuildError(f"bpy {version} is not supported: choose one of {', '.join(BLENDER_VERSIONS)}.")
    lock, python_version = BLENDER_VERSIONS[version]
    if lock == BLENDER.lists[0]:
        return BLENDER
    return Environment(
        ROOT / f".venv-blender-{version}", (lock,), BLENDER_LIBRARIES, BLENDER_DOWNLOAD, _install_locked, python_version
    )


def install_system_packages(libraries: dict[str, str]) -> None:
    """Install missing system libraries with apt-get when running as root on Debian; else raise a `BuildError` that
    names the packages.
    """
    missing = []
    if sys.platform == "linux":
        for library, package in libraries.items():
            try:
                ctypes.CDLL(library)
            except OSError:
                missing.append(package)
        try:
            import ensurepip  # noqa: F401  (only tested for: Debian has it in a separate package)
        except ImportError:
            missing.append(f"python{sys.version_info.major}.{sys.version_info.minor}-venv")
    if not missing:
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise BuildError(
            "Some system packages are missing: install them with `sudo apt-get install "
            f"{' '.join(missing)}` "
            "(or your system's equivalent), then run again."
        )
    _apt_install(missing)


def install_test_programs(programs: dict[str, str] = TEST_PROGRAMS) -> None:
    """Install the programs that some tests start, when running as root on Debian. Where that fails, those tests are
    skipped, which is said here.
    """
    places = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))
    missing = {program: package for program, package in programs.items() if not shutil.which(program, path=places)}
    if not missing or sys.platform != "linux":
        return
    try:
        if os.geteuid() != 0 or not shutil.which("apt-get"):
            raise BuildError(f"Missing on this system: {', '.join(missing.values())}")
        _apt_install(list(missing.values()))
    except BuildError as error:
        print(f"{error}. Tests that start {' or '.join(missing)} are skipped.", flush=True)


def _apt_install(packages: list[str]) -> None:
    print(f"Installing system packages: {' '.join(packages)}", flush=True)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    failed = f"The system packages {' '.join(packages)} could not be installed"
    _run_quietly(["apt-get", "update"], failed, environment)
    _run_quietly(["apt-get", "install", "-y", "--no-install-recommends", *packages], failed, environment)


def _run_quietly(command: list[str], failed: str, environment: dict[str, str] | None = None) -> None:
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL)
    if ended.returncode:
        lines = (ended.stderr or ended.stdout).strip().splitlines() or ["no reason was given"]
        raise BuildError(f"{failed}: {lines[-1]}")


def pip(environment: Environment, status: Status, verb: str, arguments: list[str]) -> None:
    """Run pip in the environment. Its progress goes to the status line; its output is used only if it fails."""
    command = [
        str(environment.python),
        "-m",
        "pip",
        verb,
        "--disable-pip-version-check",
        "--no-input",
        "--progress-bar",
        "off",
        *arguments,
    ]
    output: list[str] = []
    count = 0
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, stdin=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            output.append(line.rstrip())
            if match := re.match(r"(?:Collecting|Processing) (?:\S*/)?([\w.]+)", line):
                count += 1
                status.text = f"package {count}: {match[1]}"
            elif match := re.match(r"\s+Downloading (\S+) \((.+)\)", line):
                status.text = f"package {count}: downloading {match[1].rsplit('/', 1)[-1].split('-')[0]}, {match[2]}"
            elif line.startswith("Installing collected packages"):
                status.text = f"installing {line.count(',') + 1} packages"
    if process.returncode:
        raise BuildError(why_pip_failed(output))


def why_pip_failed(output: list[str]) -> str:
    """One sentence for the terminal that explains a failure of pip, from the lines of its output."""
    text = "\n".join(output)
    if re.search(r"No space left on device|Errno 28", text):
        return "The disk is full: Effigy's environment needs about 2 GB. Free some space and run again."
    if re.search(
        r"ConnectionError|NewConnectionError|ReadTimeout|Temporary failure in name resolution|ProxyError|"
        r"Could not fetch URL|Failed to establish|Network is unreachable|Max retries",
        text,
    ):
        return (
            "The package index could not be reached: check the network connection (set-up needs it once), then "
            "run again."
        )
    if "THESE PACKAGES DO NOT MATCH THE HASHES" in text:
        return (
            "A downloaded package is not the file that Effigy was tested with (its hash differs), so it was not "
            "installed. Run again; if it happens again, do not trust this package index."
        )
    errors = [line for line in output if line.startswith("ERROR")] or output[-1:] or ["pip gave no reason"]
    return f"The packages could not be installed. pip says: {errors[0].removeprefix('ERROR: ')}"


def _has_cuda(environment: Environment) -> bool:
    if not shutil.which("nvidia-smi"):
        return False
    return (
        subprocess.run(
            [str(environment.python), "-c", "import sys, torch; sys.exit(not torch.cuda.is_available())"],
            capture_output=True,
        ).returncode
        == 0
    )
