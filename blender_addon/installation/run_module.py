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


def _end_with_pipe(pipe: int) -> None:
    while os.read(pipe, 1024):
        pass
    os._exit(1)


def _take_stdin() -> int:
    """Another descriptor of the pipe; stdin itself becomes empty.

    While one thread reads a pipe, Windows makes every other access to that pipe wait, and the Fortran library that
    numpy loads looks at file descriptor 0: the check of the backend would never end
    (https://github.com/numpy/numpy/issues/24290).
    """
    pipe = os.dup(0)
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    return pipe


if __name__ == "__main__":
    wheel, module, *arguments = sys.argv[1:]
    # As with `-m`, modules are found in the working directory, and not beside this file.
    sys.path[0] = str(Path.cwd())
    sys.path.append(wheel)
    sys.argv = [module, *arguments]
    threading.Thread(target=_end_with_pipe, args=(_take_stdin(),), daemon=True).start()
    runpy.run_module(module, run_name="__main__", alter_sys=True)
