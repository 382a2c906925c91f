"""The environment variables of a process that runs another Python than Blender's."""

from __future__ import annotations

import os
from typing import Final

PYTHON_VARIABLES: Final = (
    "PYTHONHOME",
    "PYTHONPATH",
    "PYTHONSTARTUP",
    "PYTHONSAFEPATH",
    "PYTHONUSERBASE",
    "PYTHONEXECUTABLE",
    "__PYVENV_LAUNCHER__",
    "VIRTUAL_ENV",
)
"""Set by the user, by a virtual environment or by a program that embeds Python, for the Python that it starts. In
another Python they would add or replace packages."""


def environment_for_another_python() -> dict[str, str]:
    """The variables of this process without `PYTHON_VARIABLES`, and with Python's UTF-8 mode.

    Without that mode, a Python on Windows prints in the system's code page and reads text files in it.
    """
    kept = {name: value for name, value in os.environ.items() if name not in PYTHON_VARIABLES}
    return kept | {"PYTHONUTF8": "1"}
