"""Runs a module as `python -m` does, and ends it when the process that started this one has ended.

    python run_module.py PIP_WHEEL MODULE ARGUMENT …        with a pipe as stdin that the starting process keeps open

Without this, a Blender that is killed would leave a pip behind that goes on downloading. `PIP_WHEEL` is added to the
import path, so that environments need no pip of their own. This file runs in other Pythons than Blender's and imports
nothing of the extension.
"""

import os
import runpy
import sys
import threading
from pathlib import Path


def _end_with_stdin() -> None:
    while os.read(0, 1024):
        pass
    os._exit(1)


if __name__ == "__main__":
    wheel, module, *arguments = sys.argv[1:]
    # As with `-m`, modules are found in the working directory, and not beside this file.
    sys.path[0] = str(Path.cwd())
    sys.path.append(wheel)
    sys.argv = [module, *arguments]
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    runpy.run_module(module, run_name="__main__", alter_sys=True)
