"""Measures the wheels of the pinned packages on the package index: `python3 build.py wheels`.

For every package list and every supported platform and Python it is checked that each package has a wheel whose hash is
in the list. The wheels are not downloaded: their sizes come from the index, and the names and sizes of their files from
the directory at the end of each zip file, which is read by HTTP range requests. The results are

- requirements/wheels.json, from which the extension tells an artist the sizes of an installation before it starts, and
  computes the longest path on Windows (blender_addon/installation/figures.py);
- bench/results/wheels.md, the same as a table.

`uv` (https://docs.astral.sh/uv/), with which the lists were made, must be on the PATH: it asks the index.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

from packaging.markers import Marker
from packaging.tags import Tag, compatible_tags, cpython_tags, mac_platforms
from packaging.utils import parse_wheel_filename

from blender_addon.installation.figures import FILE, Figures
from blender_addon.installation.machine import PYTHONS

from .environments import REQUIREMENTS, ROOT, BuildError

TABLE: Final = ROOT / "bench" / "results" / "wheels.md"
PLATFORMS: Final = {
    "win_amd64": {"sys_platform": "win32", "platform_system": "Windows", "platform_machine": "AMD64", "os_name": "nt"},
    "manylinux_2_28_x86_64": {
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "os_name": "posix",
    },
    "macosx_14_0_arm64": {
        "sys_platform": "darwin",
        "platform_system": "Darwin",
        "platform_machine": "arm64",
        "os_name": "posix",
    },
}
"""Platform tag -> its values of the markers in the lists."""
LISTS: Final = {
    "backend.lock": tuple(PLATFORMS),
    "torch.lock": tuple(PLATFORMS),
    "torch-cuda.lock": ("manylinux_2_28_x86_64",),
    "warp.lock": ("win_amd64", "manylinux_2_28_x86_64"),
    "cuda.lock": ("win_amd64", "manylinux_2_28_x86_64"),
}
"""Package list -> the platforms on which it is installed."""
TORCH_INDEX_FIGURES: Final = {
    ("win_amd64", "torch=={version}+cu130"): (1_915_517_499, 4_800_000_000),
    ("manylinux_2_28_x86_64", "torch=={version}+cpu"): (191_794_682, 747_009_023),
}
"""(Platform, version) of the builds that only PyTorch's own index has -> bytes to download and unpacked. That index was
out of reach when this was written: the downloads are the sizes of the wheels of 2.13.0 for Python 3.13 and 3.11, the
unpacked size on Linux was read from that wheel, that on Windows is an estimate."""
TEMPORARY_NAME: Final = len(".140737488355327")
"""Python writes bytecode to a file with the object's address at the end of its name, and renames it."""


@dataclass(frozen=True)
class Wheel:
    name: str
    url: str
    size: int
    sha256: str
    tags: frozenset[Tag]


@dataclass(frozen=True)
class Contents:
    """What a wheel's files take when they are installed."""

    unpacked: int
    """Bytes, with every module's bytecode taken as large as its source."""
    longest: str
    """The longest path below `site-packages`."""


def main() -> int:
    """Write both files; exit code 1 if a package has no wheel for a platform, and then nothing is written."""
    table: dict[str, dict[str, Any]] = {}
    missing: list[str] = []
    wheels = {name: wheels_of(REQUIREMENTS / name) for name in LISTS}
    with ThreadPoolExecutor(8) as pool:
        for platform in PLATFORMS:
            for python in PYTHONS:
                row = table.setdefault(f"{platform}, Python {python[0]}.{python[1]}", {})
                for name in (name for name in LISTS if platform in LISTS[name]):
                    chosen, without = choose(wheels[name], platform, python)
                    missing += [
                        f"{package} in {name} has no wheel for {platform}, Python {python}" for package in without
                    ]
                    contents = list(pool.map(contents_of, chosen, [python] * len(chosen)))
                    row[name] = figures_of(chosen, contents)
                    print(f"{platform}, Python {python[0]}.{python[1]}, {name}: {len(chosen)} wheels", flush=True)
    if missing:
        print("\n".join(missing), file=sys.stderr)
        return 1
    add_torch_index(table)
    (REQUIREMENTS / FILE).write_text(json.dumps({"schema": 1, "platforms": table}, indent=1) + "\n", "utf-8")
    TABLE.write_text("".join(markdown(table)), "utf-8")
    return 0


def wheels_of(lock: Path) -> dict[str, list[Wheel]]:
    """Package -> the wheels that the index has for it and whose hash is in the list. Packages for other platforms than
    one's own are included; `choose` decides.
    """
    uv = shutil.which("uv")
    if uv is None:
        raise BuildError("`uv` was not found: install it (https://docs.astral.sh/uv/) and put it on the PATH.")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "pylock.toml")
        command = [uv, "pip", "compile", "--quiet", "--format", "pylock.toml", "--universal", "--no-deps"]
        ended = subprocess.run(
            [*command, "--python-version", "3.11", str(lock), "-o", str(out)], capture_output=True, text=True
        )
        if ended.returncode:
            raise BuildError(f"uv could not resolve {lock.name}: {ended.stderr.strip()}")
        packages = tomllib.loads(out.read_text("utf-8"))["packages"]
    text = lock.read_text("utf-8")
    found: dict[str, list[Wheel]] = {}
    for package in packages:
        wheels = [_wheel(entry) for entry in package.get("wheels", [])]
        # A list of hashes stays valid when the index adds builds, but pip takes only what the list names.
        found[_requirement(text, package["name"])] = [wheel for wheel in wheels if f"sha256:{wheel.sha256}" in text]
    return found


def choose(wheels: dict[str, list[Wheel]], platform: str, python: tuple[int, int]) -> tuple[list[Wheel], list[str]]:
    """The wheel of each package that pip takes on a platform, and the packages that have none."""
    order = {tag: place for place, tag in enumerate(tags_of(platform, python))}
    chosen, without = [], []
    version = f"{python[0]}.{python[1]}"
    environment = PLATFORMS[platform] | {"python_version": version, "python_full_version": f"{version}.0"}
    for requirement, candidates in wheels.items():
        package, _, marker = requirement.partition(";")
        if marker and not Marker(marker).evaluate(environment):
            continue
        usable = [
            (min(order[tag] for tag in wheel.tags & order.keys()), wheel)
            for wheel in candidates
            if wheel.tags & order.keys()
        ]
        if usable:
            chosen.append(min(usable, key=lambda pair: pair[0])[1])
        else:
            without.append(package.strip())
    return chosen, without


def tags_of(platform: str, python: tuple[int, int]) -> Iterator[Tag]:
    """The tags of wheels that a Python takes on a platform, the preferred first."""
    if platform.startswith("macosx"):
        platforms = list(mac_platforms((14, 0), "arm64"))
    elif platform.startswith("manylinux"):
        architecture = platform.split("_", 3)[3]
        platforms = [f"manylinux_2_{minor}_{architecture}" for minor in range(28, 4, -1)]
        platforms += [f"{old}_{architecture}" for old in ("manylinux2014", "manylinux2010", "manylinux1", "linux")]
    else:
        platforms = [platform]
    yield from cpython_tags(python, platforms=platforms)
    yield from compatible_tags(python, f"cp{python[0]}{python[1]}", platforms)


@cache
def contents_of(wheel: Wheel, python: tuple[int, int]) -> Contents:
    """What a wheel's files take, from the directory at the end of the zip file."""
    with zipfile.ZipFile(io.BufferedReader(_RemoteFile(wheel.url, wheel.size), 1 << 18)) as archive:
        entries = [(entry.filename, entry.file_size) for entry in archive.infolist() if not entry.is_dir()]
    unpacked = sum(size * (2 if name.endswith(".py") else 1) for name, size in entries)
    return Contents(unpacked, max((_installed_path(name, python) for name, _ in entries), key=len))


def figures_of(wheels: list[Wheel], contents: list[Contents]) -> dict[str, Any]:
    longest = max((content.longest for content in contents), key=len)
    figures = Figures(
        len(wheels), sum(wheel.size for wheel in wheels), sum(content.unpacked for content in contents), len(longest)
    )
    return asdict(figures) | {"longest_path": longest}


def add_torch_index(table: dict[str, dict[str, Any]]) -> None:
    """Add the builds that only PyTorch's own index has. Their longest path is that of all wheels of this version on the
    package index, the CUDA build for Linux included, since they contain the same headers.
    """
    version = re.search(r"^torch==([\w.]+)", (REQUIREMENTS / "torch.lock").read_text("utf-8"), re.MULTILINE)
    assert version
    longest = max((row["torch.lock"]["longest_path"] for row in table.values()), key=len)
    for (platform, name), (download, unpacked) in TORCH_INDEX_FIGURES.items():
        for title, row in table.items():
            if title.startswith(platform):
                build = name.partition("+")[2]
                # The folder of the wheel's metadata has the build's tag in its name.
                path = longest.replace(".dist-info", f"+{build}.dist-info")
                figures = Figures(1, download, unpacked, len(path))
                row[name.format(version=version[1])] = asdict(figures) | {"longest_path": path, "measured": False}


def markdown(table: dict[str, dict[str, Any]]) -> Iterator[str]:
    yield (
        "# The wheels of the package lists\n\nWritten by `python3 build.py wheels` on "
        f"{datetime.now(UTC):%d %B %Y}. Every package of every list has a "
        "wheel with a listed hash in each row. The longest path is counted below `site-packages`, with bytecode "
        "and its temporary names. Rows marked * are builds that only PyTorch's own index has: their sizes were not "
        "read from that index (see `TORCH_INDEX_FIGURES` in building/wheels.py).\n\n"
        "| platform | list | wheels | download, MB | installed, MB | longest path |\n|---|---|---|---|---|---|\n"
    )
    for title, row in table.items():
        for name, figures in row.items():
            star = "" if figures.get("measured", True) else " *"
            yield (
                f"| {title} | {name}{star} | {figures['packages']} | {figures['download'] / 1e6:.0f} | "
                f"{figures['unpacked'] / 1e6:.0f} | {figures['longest']} |\n"
            )
    user = "C:\\Users\\" + 20 * "u" + "\\AppData\\Local\\Effigy\\5.0\\env-0000\\Lib\\site-packages\\"
    longest = max(
        (figures["longest_path"] for title, row in table.items() if "win" in title for figures in row.values()), key=len
    )
    yield (
        f"\nOn Windows, for a user name of 20 characters, `site-packages` has {len(user)} characters with its last "
        f"backslash, and the longest path of all is {len(user) + len(longest)} (the limit is 259):\n\n    {longest}\n"
    )


def _wheel(entry: dict[str, Any]) -> Wheel:
    filename = urllib.parse.unquote(entry["url"].rsplit("/", 1)[1])
    return Wheel(filename, entry["url"], entry["size"], entry["hashes"]["sha256"], parse_wheel_filename(filename)[3])


def _requirement(lock: str, name: str) -> str:
    """The line of a package in a list, with its marker."""
    line = re.search(rf"^{re.escape(name)}==[^\\\n]*", lock, re.MULTILINE | re.IGNORECASE)
    assert line, name
    return line[0].strip()


def _installed_path(name: str, python: tuple[int, int]) -> str:
    """The longest path, below `site-packages`, that installing a wheel's file makes."""
    name = re.sub(r"^[^/]+\.data/(purelib|platlib)/", "", name)
    name = re.sub(r"^[^/]+\.data/(scripts|data)/", "../../", name)
    if not name.endswith(".py"):
        return name
    folder, _, file = name.rpartition("/")
    bytecode = f"__pycache__/{file[:-3]}.cpython-{python[0]}{python[1]}.pyc" + "0" * TEMPORARY_NAME
    return f"{folder}/{bytecode}" if folder else bytecode


class _RemoteFile(io.RawIOBase):
    """A file on a server that answers range requests, as a seekable binary stream."""

    def __init__(self, url: str, size: int) -> None:
        self._url, self._size, self._position = url, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + (0, self._position, self._size)[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        length = min(len(buffer), self._size - self._position)
        if length <= 0:
            return 0
        wanted = f"bytes={self._position}-{self._position + length - 1}"
        request = urllib.request.Request(self._url, headers={"Range": wanted})
        with urllib.request.urlopen(request, timeout=60) as answer:
            data = answer.read()
        if answer.status != 206 or len(data) != length:
            raise BuildError(f"The index does not answer range requests: {self._url}")
        buffer[:length] = data
        self._position += length
        return length


if __name__ == "__main__":
    sys.exit(main())
