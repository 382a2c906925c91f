"""The two environments: `.venv`, where the backend runs, and `.venv-blender`, which stands for Blender's own Python.

They are two as at a user's: no torch leaks to Blender's side, and their numpy pins never meet. Each is made from exact
lists in requirements/. A stamp inside says which lists it was made from, so a second run is instant and needs no
network; an environment without the right stamp (interrupted, or of other lists) is made anew."""

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

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"
PYTHON_VERSIONS = ((3, 11), (3, 13))
"""Those that Blender's own Python has (5.0 and 5.2), so that both sides of Effigy run on one."""

BACKEND_LIBRARIES = {"libEGL.so.1": "libegl1", "libGLESv2.so.2": "libgles2"}
"""What MediaPipe links on Linux even when it runs on the CPU: library -> Debian package."""

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
"""What Blender as a module links on Linux; without libEGL its first render ends the process."""


class BuildError(Exception):
    """A sentence for the person at the terminal."""


class Status:
    """One line that says what is being done and for how long: rewritten on a terminal, else printed every ten
    seconds."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._started = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> Status:
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
    """The files of requirements/ that it is made from."""
    libraries: dict[str, str]
    """System libraries it links on Linux -> Debian packages."""
    costs: str
    """What making it downloads, in words."""
    install: Callable[[Environment, Status], None]
    """Puts the packages of the lists into the fresh environment."""
    python_version: tuple[int, int] = tuple(sys.version_info[:2])
    """Of the interpreter inside."""

    @property
    def python(self) -> Path:
        return self.folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    @property
    def stamp(self) -> Path:
        return self.folder / "effigy-setup.json"

    def wanted_stamp(self) -> dict[str, str]:
        digest = hashlib.sha256()
        for name in self.lists:
            # Line ends may differ between checkouts of one commit.
            digest.update((REQUIREMENTS / name).read_bytes().replace(b"\r\n", b"\n"))
        return {"python": "{}.{}".format(*self.python_version), "requirements": digest.hexdigest()}

    def is_made(self) -> bool:
        try:
            return json.loads(self.stamp.read_text("utf-8")) == self.wanted_stamp() and self.python.exists()
        except (OSError, ValueError):
            return False


def set_up(environment: Environment) -> None:
    """Make the environment if it is not there as its lists want it."""
    if environment.is_made():
        install_system_packages(environment.libraries)
        return
    install_system_packages(environment.libraries)
    started = time.monotonic()
    print(f"Setting up {environment.folder.name} (once; {environment.costs})", flush=True)
    with Status("making the environment") as status:
        # From nothing: what an interrupted installation left, or an older list, must not stay behind.
        _run_quietly(
            [_base_python(environment.python_version), "-m", "venv", "--clear", str(environment.folder)],
            f"The environment {environment.folder.name} could not be made",
        )
        environment.install(environment, status)
    environment.stamp.write_text(json.dumps(environment.wanted_stamp()), "utf-8")
    print(f"Set-up of {environment.folder.name} finished in {time.monotonic() - started:.0f} s.", flush=True)


def check_python() -> None:
    if sys.version_info[:2] not in PYTHON_VERSIONS:
        wanted = " or ".join(f"{major}.{minor}" for major, minor in PYTHON_VERSIONS)
        raise BuildError(
            f"Effigy is built with Python {wanted}, and this is Python {sys.version_info.major}."
            f"{sys.version_info.minor}: run `python{wanted.split()[0]} build.py …`."
        )


def _base_python(version: tuple[int, int]) -> str:
    """The interpreter that an environment is made of: this one, or another version's from the PATH."""
    if version == tuple(sys.version_info[:2]):
        return sys.executable
    name = "python{}.{}".format(*version)
    command = shutil.which(name)
    # A launcher of pyenv's is there for versions that are not, and says so when it is run.
    if command is None or subprocess.run([command, "-c", ""], capture_output=True).returncode:
        raise BuildError(
            f"This Blender has Python {version[0]}.{version[1]}, and there is no {name} here: install it, or test "
            "another version of Blender."
        )
    return command


def _install_backend(environment: Environment, status: Status) -> None:
    pip(
        environment,
        status,
        "install",
        ["--no-deps", "--require-hashes", "--only-binary", ":all:", "-r", str(REQUIREMENTS / "backend.lock")],
    )
    pip(environment, status, "install", ["-r", str(REQUIREMENTS / "torch.txt")])
    status.text = "looking for a GPU"
    if _has_cuda(environment):
        pip(environment, status, "install", ["--no-deps", "--require-hashes", "-r", str(REQUIREMENTS / "cuda.lock")])


def _install_blender(environment: Environment, status: Status) -> None:
    pip(
        environment,
        status,
        "install",
        ["--no-deps", "--require-hashes", "--only-binary", ":all:", "-r", str(REQUIREMENTS / environment.lists[0])],
    )


BACKEND = Environment(
    ROOT / ".venv",
    ("backend.lock", "torch.txt", "cuda.lock"),
    BACKEND_LIBRARIES,
    "about 0.6 GB are downloaded",
    _install_backend,
)
BLENDER_COSTS = "about 0.4 GB are downloaded"
BLENDER = Environment(
    ROOT / ".venv-blender",
    ("blender-{}.{}.lock".format(*sys.version_info),),
    BLENDER_LIBRARIES,
    BLENDER_COSTS,
    _install_blender,
)

BLENDER_VERSIONS = {
    "4.2.23": ("blender-4.2.lock", (3, 11)),
    "5.0.1": ("blender-3.11.lock", (3, 11)),
    "5.2.3": ("blender-3.13.lock", (3, 13)),
}
"""What `test --bpy` knows: version of Blender as a module -> its list, and the Python that it is built for."""


def blender_of(version: str) -> Environment:
    """The environment of one version of Blender; that of `.venv-blender` where it is the same."""
    if version not in BLENDER_VERSIONS:
        raise BuildError(f"There is no list for bpy {version}: choose one of {', '.join(BLENDER_VERSIONS)}.")
    lock, python_version = BLENDER_VERSIONS[version]
    if lock == BLENDER.lists[0]:
        return BLENDER
    return Environment(
        ROOT / f".venv-blender-{version}", (lock,), BLENDER_LIBRARIES, BLENDER_COSTS, _install_blender, python_version
    )


def install_system_packages(libraries: dict[str, str]) -> None:
    """Install what Debian and its kin lack, if we may; else say what to install."""
    missing = []
    if sys.platform == "linux":
        for library, package in libraries.items():
            try:
                ctypes.CDLL(library)
            except OSError:
                missing.append(package)
        try:
            import ensurepip  # noqa: F401  (Debian splits it off into a package of its own)
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
    print(f"Installing system packages: {' '.join(missing)}", flush=True)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    failed = f"The system packages {' '.join(missing)} could not be installed"
    _run_quietly(["apt-get", "update"], failed, environment)
    _run_quietly(["apt-get", "install", "-y", "--no-install-recommends", *missing], failed, environment)


def _run_quietly(command: list[str], failed: str, environment: dict[str, str] | None = None) -> None:
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL)
    if ended.returncode:
        lines = (ended.stderr or ended.stdout).strip().splitlines() or ["no reason was given"]
        raise BuildError(f"{failed}: {lines[-1]}")


def pip(environment: Environment, status: Status, verb: str, arguments: list[str]) -> None:
    """Run pip, its output kept for the case of failure, its progress on our one line."""
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
    said: list[str] = []
    count = 0
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, stdin=subprocess.DEVNULL
    ) as process:
        for line in process.stdout:
            said.append(line.rstrip())
            if match := re.match(r"(?:Collecting|Processing) (?:\S*/)?([\w.]+)", line):
                count += 1
                status.text = f"package {count}: {match[1]}"
            elif match := re.match(r"\s+Downloading (\S+) \((.+)\)", line):
                status.text = f"package {count}: downloading {match[1].rsplit('/', 1)[-1].split('-')[0]}, {match[2]}"
            elif line.startswith("Installing collected packages"):
                status.text = f"installing {line.count(',') + 1} packages"
    if process.returncode:
        raise BuildError(why_pip_failed(said))


def why_pip_failed(said: list[str]) -> str:
    text = "\n".join(said)
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
            "A downloaded package is not the one that Effigy was built with (its hash differs): nothing of it was "
            "installed."
        )
    errors = [line for line in said if line.startswith("ERROR")] or said[-1:] or ["pip gave no reason"]
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
