"""Explains why a step of an installation failed, from what pip or Python printed, with the next step for the user."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from .. import child_process
from .machine import SUPPORTED
from .plan import Step

DISK_FULL: Final = "The disk is full. Free some space, then install again."
OTHER_FILE: Final = (
    "A downloaded package is not the one that Effigy was tested with (its hash differs), so it was not installed. If a "
    "mirror or a proxy serves your packages, tell whoever runs it; otherwise install again."
)
_KEPT: Final = "Packages that were already downloaded are kept."
_CAUSES: Final = (
    (
        r"No space left on device|Errno 28\b|WinError 112|Disk quota exceeded|Errno 122\b",
        DISK_FULL,
    ),
    (
        r"Windows Long Path support|WinError 206|filename or extension is too long|File name too long|Errno 36\b",
        "A path is too long: let an administrator enable long paths in Windows (group policy “Enable Win32 long "
        "paths”), restart Blender, then install again.",
    ),
    (
        r"WinError 32\b|WinError 225|virus|being used by another process",
        "An antivirus blocked or holds a file of the backend: exclude the backend's folder there, then install again.",
    ),
    (
        r"Permission denied|Errno 13\b|WinError 5\b|Access is denied",
        "A file could not be written: the folder is read-only, or another program, such as an antivirus, is using the "
        "file. Check both, then install again.",
    ),
    (
        r"SSLError|CERTIFICATE_VERIFY_FAILED|SSLCertVerificationError|SSL: ",
        "No secure connection could be made, because a certificate was refused: check this computer's date. Where a "
        "company's proxy or an antivirus inspects connections, its certificate must be trusted by the system, or be "
        "named by the environment variable PIP_CERT. Then install again.",
    ),
    (
        r"ProxyError|Proxy Authentication Required|Tunnel connection failed|407 Proxy",
        "The proxy refused the connection: set the environment variable HTTPS_PROXY to http://USER:PASSWORD@HOST:PORT, "
        "restart Blender, then install again.",
    ),
    (
        r"ConnectionError|NewConnectionError|ConnectTimeout|ReadTimeout|name resolution|NameResolutionError|"
        r"getaddrinfo|Failed to establish|Network is unreachable|Max retries|ConnectionReset|"
        r"Connection refused|RemoteDisconnected|"
        r"IncompleteRead|ProtocolError|Connection aborted|incomplete-download|Could not fetch URL|timed out",
        "{source} could not be reached, or the connection broke: check the network connection, then install again. "
        + _KEPT,
    ),
    (
        r"DO NOT MATCH THE HASHES",
        OTHER_FILE,
    ),
    (
        r"the wrong PyTorch was installed",
        "The package index served another build of PyTorch than the one that was chosen: if a mirror serves your "
        "packages, use PyTorch's own index, then install again.",
    ),
    (
        r"WinError 126|WinError 127|Visual C\+\+ Redistributable|c10\.dll|DLL load failed",
        "PyTorch needs the Microsoft Visual C++ Redistributable: install it from "
        "https://aka.ms/vs/17/release/vc_redist.x64.exe, then install again.",
    ),
    (
        r"No module named '?(venv|ensurepip)|ensurepip is not available",
        "Blender's Python cannot make virtual environments: on Debian and Ubuntu install python3-venv, or use Blender "
        "from blender.org, then install again.",
    ),
    (
        r"No matching distribution|from versions: none",
        "{source} has no package for this system or this version of Python. " + SUPPORTED,
    ),
)
"""(Regular expression for the output, sentence), the most certain cause first. pip ends with “No matching distribution”
also when it could not connect, so the network is looked for before. `{source}` is where the step downloads from."""


def explain_failure(step: Step, output: Sequence[str], code: int = 1) -> str:
    """The cause of a failed step as sentences for a user who does not know pip, from the lines of its output and its
    exit code as `subprocess` states it.
    """
    text = "\n".join(output)
    for pattern, sentence in _CAUSES:
        if re.search(pattern, text):
            return sentence.format(source=step.source)
    last = next((line for line in reversed(output) if line.strip()), "")
    if code not in (0, 1, 2):
        return f"{step.title} ended unexpectedly ({child_process.describe_exit(code)}): install again."
    return f"{step.title} failed: {last.removeprefix('ERROR: ') or 'no reason was given'}"
