"""A real sshd on loopback, with throwaway keys, whose sessions cannot see a folder of this machine.

`hidden` folders are covered by an empty file system inside the session (`unshare`), so that a path of the client leads
nowhere there, as on another machine. Skips the test where sshd or the right to do that is missing.
"""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from backend.splatting.jit import cache_folder

ROOT = Path(__file__).resolve().parents[2]
SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


@dataclass(frozen=True)
class SshServer:
    folder: Path
    """Keys and configuration."""
    home: Path
    """The home folder of the sessions."""
    port: int
    process: subprocess.Popen

    def command(self, hidden: Path | None = None, before: str = "") -> list[str]:
        """The Worker Command: starts a worker in a session with another home folder and current folder. `before`: shell
        code that runs first.
        """
        variables = {
            "HOME": self.home,
            "XDG_CACHE_HOME": self.home / ".cache",
            "XDG_DATA_HOME": self.home / ".local/share",
            "PYTHONPATH": ROOT,
            # Compiled kernels are the one thing that both sides may share: compiling them takes half a minute.
            "NUMBA_CACHE_DIR": cache_folder().parent,
        }
        exports = " ".join(f"{name}={shlex.quote(str(value))}" for name, value in variables.items())
        worker = f"exec {shlex.quote(sys.executable)} -m backend serve"
        inside = f"{before} cd {shlex.quote(str(self.home))} && export {exports} && {worker}"
        if hidden:
            covered = f"mount -t tmpfs none {shlex.quote(str(hidden))} && {inside}"
            inside = f"exec unshare --mount --propagation private sh -c {shlex.quote(covered)}"
        return [*self.ssh(), inside]

    def ssh(self) -> list[str]:
        known = f"UserKnownHostsFile={self.folder}/known_hosts"
        options = (
            "BatchMode=yes",
            "IdentitiesOnly=yes",
            "StrictHostKeyChecking=accept-new",
            "ConnectTimeout=10",
            known,
        )
        return [
            "ssh",
            "-q",
            "-F",
            "none",
            "-p",
            str(self.port),
            "-i",
            f"{self.folder}/key",
            *(part for option in options for part in ("-o", option)),
            "127.0.0.1",
        ]


@contextmanager
def ssh_server(folder: Path) -> Iterator[SshServer]:
    if SSHD is None or not shutil.which("ssh") or not shutil.which("ssh-keygen"):
        pytest.skip("sshd is not installed (Debian: openssh-server)")
    if os.geteuid() == 0:
        # sshd's own requirement; Debian's package makes it when the system starts.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    home = folder / "home"
    home.mkdir()
    for name in ("host", "key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    shutil.copyfile(folder / "key.pub", folder / "authorized")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized\n"
        "PidFile none\nUsePAM no\nStrictModes no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n"
    )
    process = subprocess.Popen([SSHD, "-D", "-E", str(folder / "log"), "-f", str(folder / "sshd_config")])
    server = SshServer(folder, home, port, process)
    try:
        for _ in range(100):
            if subprocess.run([*server.ssh(), "true"], stdin=subprocess.DEVNULL, capture_output=True).returncode == 0:
                break
            if process.poll() is not None:
                pytest.skip(f"sshd does not run here: {(folder / 'log').read_text()[-300:]}")
            time.sleep(0.1)
        else:
            pytest.skip(f"No login at sshd here: {(folder / 'log').read_text()[-300:]}")
        yield server
    finally:
        process.terminate()
        process.wait(10)


def can_hide_folders() -> bool:
    """Whether a session can cover a folder by an empty one; this needs a privilege."""
    command = ["unshare", "--mount", "--propagation", "private", "true"]
    return shutil.which("unshare") is not None and subprocess.run(command, capture_output=True).returncode == 0
