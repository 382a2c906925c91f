"""A package index on this machine, with tiny wheels made on the fly, and a small extension that is installed from it.

Installations are tested and measured with it: venv, pip and the installer are the real ones, and the packages are small
enough to be installed in a second. The index can fail in the ways in which networks do.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

from blender_addon.installation import plan
from blender_addon.installation.figures import FILE
from blender_addon.installation.machine import PYTHONS
from blender_addon.installation.place import Environments

ROOT: Final = Path(__file__).resolve().parents[1]
PACKAGES: Final = 3
SIZE: Final = 3_000_000
"""Bytes of a wheel: enough for several reads, so that a connection can break within a file."""
TORCH: Final = "2.13.0"
FIGURES: Final = {"packages": PACKAGES, "download": PACKAGES * SIZE, "unpacked": PACKAGES * SIZE, "longest": 100}
DOCTOR: Final = """import effigy_part_0, sys
if effigy_part_0.VERSION != EXPECTED:
    sys.exit("ERROR: the packages do not work")
print("Training         ok       An avatar was trained for 2 steps and drawn on the device cpu.")
"""


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A pip that is killed, or whose disk is full, closes its connections: that is no error here."""


class PackageIndex:
    """Serves the wheels in `folder` at `url`/simple, and those of PyTorch's builds at `url`/whl/BUILD, with ranges."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.breaks = 0
        """How many more downloads of wheels break off in the middle."""
        self.other_bytes = False
        """Whether each wheel is served with another byte than its hash says."""
        self.pause = 0.0
        """Seconds between two parts of 64 kB."""
        self.closed_after: str | None = None
        """The name of the package after whose download nothing is answered any more."""
        self.requests: list[tuple[str, str]] = []
        """(Path, value of the header `Range` or "") of each request."""
        index = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                index.answer(self)

            def log_message(self, *_: object) -> None:
                """Requests are kept in `requests` instead."""

        self._server = _QuietServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Ends the server: nothing answers at its address any more."""
        self._server.shutdown()
        self._server.server_close()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path, wanted = request.path, request.headers.get("Range", "")
        if self.closed_after and any(self.closed_after in done for done, _ in self.requests if done.endswith(".whl")):
            request.close_connection = True
            return
        self.requests.append((path, wanted))
        wheels = sorted(self.folder.rglob("*.whl"))
        if path.endswith("/"):
            name = path.rstrip("/").rsplit("/", 1)[1].replace("-", "_")
            links = [
                f'<a href="/files/{wheel.relative_to(self.folder).as_posix().replace("+", "%2B")}">{wheel.name}</a>'
                for wheel in wheels
                if wheel.name.startswith(f"{name}-") and (wheel.parent.name in path or wheel.parent.name == "simple")
            ]
            self._send(request, 200 if links else 404, "\n".join(links).encode(), {"Content-Type": "text/html"})
            return
        data = (self.folder / path.removeprefix("/files/").replace("%2B", "+")).read_bytes()
        if self.other_bytes:
            data = data[:-1] + bytes([data[-1] ^ 1])
        start = int(wanted.removeprefix("bytes=").split("-")[0]) if wanted else 0
        part = f"bytes {start}-{len(data) - 1}/{len(data)}"
        # pip keeps in its cache what the index lets it keep, as PyPI does.
        headers = {"Accept-Ranges": "bytes", "ETag": f'"{len(data)}"', "Cache-Control": "max-age=3600, immutable"}
        headers |= {"Content-Range": part} if wanted else {}
        self._send(request, 206 if wanted else 200, data[start:], headers)

    def _send(self, request: BaseHTTPRequestHandler, status: int, data: bytes, headers: dict[str, str]) -> None:
        request.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(data))}).items():
            request.send_header(name, value)
        request.end_headers()
        breaks = self.breaks > 0 and "Accept-Ranges" in headers
        if breaks:
            self.breaks -= 1
            data = data[: len(data) // 2]
        request.close_connection = breaks
        # pip may have been killed, or have closed the connection because its disk is full.
        with suppress(ConnectionError):
            for start in range(0, len(data), 1 << 16):
                request.wfile.write(data[start : start + (1 << 16)])
                if self.pause:
                    time.sleep(self.pause)


def make_extension(folder: Path, wheels: Path, version: str = "1.0") -> Path:
    """A folder like the extension's: package lists of tiny packages, their wheels in `wheels`, and a `backend` whose
    `doctor` passes if the packages of `version` are installed.
    """
    simple = wheels / "simple"
    parts = [
        _make_wheel(simple, f"effigy_part_{number}", version, f"VERSION = {version!r}") for number in range(PACKAGES)
    ]
    torch = f"class version: cuda = {{}}\n__version__ = {TORCH!r}"
    lists = {
        "backend.lock": parts,
        "torch.lock": [_make_wheel(simple, "torch", TORCH, torch.format("'13.0'"))],
        "torch-cuda.lock": [_make_wheel(simple, "cuda_toolkit", "13.0.3", "")],
        "warp.lock": [_make_wheel(simple, "warp_lang", "1.19.0", "")],
    }
    for build, cuda in (("cpu", "None"), ("cu130", "'13.0'")):
        _make_wheel(wheels / build, "torch", f"{TORCH}+{build}", torch.format(cuda))
    requirements = folder / "requirements"
    requirements.mkdir(parents=True, exist_ok=True)
    for name, files in lists.items():
        (requirements / name).write_text("".join(map(_locked, files)), "utf-8")
    figures = dict.fromkeys((*lists, f"torch=={TORCH}+cpu", f"torch=={TORCH}+cu130"), FIGURES)
    rows = {f"{tag}, Python {a}.{b}": figures for tag in ("manylinux_2_28_x86_64", "win_amd64") for a, b in PYTHONS}
    (requirements / FILE).write_text(json.dumps({"schema": 1, "platforms": rows}), "utf-8")
    for name in (plan.PIP_WHEEL, plan.PIP_LIST):
        shutil.copyfile(ROOT / "requirements" / name, requirements / name)
    (folder / "backend").mkdir(exist_ok=True)
    (folder / "backend" / "__init__.py").touch()
    (folder / "backend" / "__main__.py").write_text(DOCTOR.replace("EXPECTED", repr(version)), "utf-8")
    return folder


@contextmanager
def pip_uses(index: PackageIndex) -> Iterator[None]:
    """Has every pip that is started here use `index` alone, and the plans take PyTorch's builds from it."""
    before, torch_index, options = dict(os.environ), plan.TORCH_INDEX, plan.PIP_OPTIONS
    for name in [name for name in os.environ if name.upper().startswith("PIP_") or "PROXY" in name.upper()]:
        del os.environ[name]
    os.environ |= {"PIP_INDEX_URL": f"{index.url}/simple", "PIP_CONFIG_FILE": os.devnull, "NO_PROXY": "127.0.0.1"}
    # pip's cache leaves out what comes without TLS from a host that is not trusted.
    os.environ["PIP_TRUSTED_HOST"] = "127.0.0.1"
    plan.TORCH_INDEX = f"{index.url}/whl"
    # One retry: pip waits longer before each further one.
    plan.PIP_OPTIONS = tuple("1" if options[place - 1] == "--retries" else part for place, part in enumerate(options))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        plan.TORCH_INDEX, plan.PIP_OPTIONS = torch_index, options


def environments_in(folder: Path) -> Environments:
    return Environments(folder / "environments", folder / "backend")


def _make_wheel(folder: Path, name: str, version: str, code: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    # Not compressible, and the same for every run.
    filling = b"".join(hashlib.sha256(f"{name}{number}".encode()).digest() for number in range(SIZE // 32))
    files = {
        f"{name}/__init__.py": code.encode(),
        f"{name}/filling.bin": filling,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: effigy\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{file},,\n" for file in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(path, "w") as archive:
        for file, data in (files | {f"{info}/RECORD": record.encode()}).items():
            archive.writestr(zipfile.ZipInfo(file, (2024, 1, 1, 0, 0, 0)), data)
    return path


def _locked(wheel: Path) -> str:
    name, version = wheel.name.split("-")[:2]
    return f"{name}=={version} \\\n    --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"
