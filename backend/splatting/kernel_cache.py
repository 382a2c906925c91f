"""Where compiled kernels are kept: in the user's cache folder, because the sources may be read-only once installed."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from ..user_cache import user_cache


def writable_cache(name: str, variable: str) -> Path:
    """A writable folder `name` for compiled kernels, made if it is absent.

    It lies in the folder that the environment variable `variable` names, else in Effigy's folder of the user's cache.
    Where neither can be written, it is a temporary folder, and kernels are compiled again in the next process.
    """
    candidates = [Path(os.environ[variable])] if os.environ.get(variable) else []
    # An account without a home folder, as in a container, has no cache either.
    with suppress(RuntimeError):
        candidates.append(user_cache())
    for candidate in candidates:
        try:
            (candidate / name).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=candidate / name):
                return candidate / name
        except OSError:
            continue
    return Path(tempfile.mkdtemp(prefix="effigy-"))
