"""The sandbox itself: a write outside the scratch folder must fail, whoever tries it."""

from __future__ import annotations

import os
import random
import socket
from pathlib import Path
from typing import Final

from bench.fault_rows.outcome import Outcome, Place

TITLE: Final = "writes outside the scratch folder, by the bench itself"
ASKED: Final = "each refused by the system"
FULL: Final = 20
SHORT: Final = 5


def run(place: Place, seed: int, count: int) -> Outcome:
    outcome = Outcome()
    names = ("/", "/etc", "/usr", "/var", "/root", str(Path(__file__).parent))
    folders = [name for name in names if Path(name).is_dir()]
    draw = random.Random(seed)
    for _ in range(count):
        folder = draw.choice(folders)
        try:
            Path(folder, f"effigy-{draw.getrandbits(32):x}").mkdir()
        except OSError:
            outcome.record(folder, None)
        else:
            outcome.record(folder, "a folder could be made there")
    if os.getuid() == 0:
        outcome.failures.append("the row runs as root")
    (place.scratch / "written").write_text("", "utf-8")
    (place.home / "written").write_text("", "utf-8")
    room = os.statvfs(place.small_disk)
    outcome.figures["small disk"] = f"{room.f_bavail * room.f_frsize >> 20} MB free"
    with socket.socket() as probe:
        probe.settimeout(2)
        # An address of TEST-NET-1 (RFC 5737): no machine has it.
        if probe.connect_ex(("192.0.2.1", 80)) == 0:
            outcome.failures.append("the network could be reached")
    return outcome
