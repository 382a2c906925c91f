"""NVIDIA Warp as Effigy uses it: silent, its compiled kernels in the user's cache, launched by one thread at a time.

Warp compiles one source for a GPU (with NVRTC) and for a CPU (with Clang); its wheel contains both compilers. The first
launch of a module's kernels compiles them within seconds, later processes load them from the cache. Modules with
kernels import `wp` from here, so that it is set up before anything is compiled. Warp is an optional package: importing
this module raises an `EffigyError` where it is not installed.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator
from typing import Any

import torch

from ..errors import EffigyError
from .kernel_cache import writable_cache
from .short_paths import short_path

try:
    import warp
    from warp._src import build
except ImportError as error:
    raise EffigyError(
        "Drawing with NVIDIA Warp needs the package warp-lang: install the backend again on a machine with an NVIDIA "
        "GPU, or draw on the CPU."
    ) from error

wp: Any = warp
"""Warp itself. Its declared types are those of Python's side; inside kernels, which Warp compiles, others hold."""

# Warp prints its version and every compilation on stdout, where the worker speaks JSON with Blender.
wp.config.log_level = wp.LOG_ERROR
wp.config.kernel_cache_dir = str(writable_cache("warp", "WARP_CACHE_PATH"))

_one_at_a_time = threading.RLock()


@contextlib.contextmanager
def launching(device: torch.device) -> Iterator[Any]:
    """Context for launches on a PyTorch device, on PyTorch's current stream; yields Warp's device.

    Threads take turns, because Warp keeps the current stream and the loaded modules in one place for all threads. On a
    GPU a turn is short: launches return before the kernels have run. Kernels that cannot be built or loaded raise a
    `RuntimeError`, as every failure of PyTorch on a GPU does.
    """
    with _one_at_a_time, _runtime_errors():
        _start()
        if device.type == "cuda" and not wp.is_cuda_available():
            raise EffigyError(
                f"NVIDIA Warp {wp.__version__} cannot use the GPU: update its driver to version 580 or newer."
            )
        warp_device = wp.device_from_torch(device)
        if device.type == "cuda":
            with wp.ScopedStream(wp.stream_from_torch(torch.cuda.current_stream(device))):
                yield warp_device
        else:
            yield warp_device


@functools.cache
def _start() -> None:
    r"""Start Warp, and give it paths that it can open on Windows.

    Warp opens its cache with C's `fopen`, and NVRTC Warp's headers with the system's code page, both from UTF-8: below
    a user folder such as `C:\Users\Jürgen` no kernel could be built. Warp resolves short names when it starts, so
    they are set afterwards.
    """
    wp.init()
    cache, home = wp.config.kernel_cache_dir, build.warp_home
    wp.config.kernel_cache_dir, build.warp_home = short_path(cache), short_path(home)
    if (wp.config.kernel_cache_dir, build.warp_home) != (cache, home):
        # These would lie in the user's folder for temporary files.
        wp.config.use_precompiled_headers = False


@contextlib.contextmanager
def _runtime_errors() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, EffigyError):
        raise
    except Exception as error:
        # Warp raises plain `Exception` if a build fails, and errors of the operating system around its cache.
        raise RuntimeError(f"NVIDIA Warp: {error}") from error
