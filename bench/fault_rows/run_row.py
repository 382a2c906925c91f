"""Runs one row inside the sandbox: python -m bench.fault_rows.run_row NAME SEED COUNT PLACE (`bench.fault_sandbox`).

PLACE/outcome.json receives the row's `Outcome`.
"""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import asdict
from pathlib import Path

from bench.fault_rows.outcome import Place


def main() -> None:
    name, seed, count, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    row = importlib.import_module(f"bench.fault_rows.{name}")
    outcome = row.run(Place(folder / "scratch", folder / "small_disk", folder / "home"), seed, count)
    (folder / "outcome.json").write_text(json.dumps(asdict(outcome)), "utf-8")


if __name__ == "__main__":
    main()
