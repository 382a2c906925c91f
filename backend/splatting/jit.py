"""How numba kernels are compiled, here and in every other room: their cache and floating-point rules.

Kernels are compiled by numba on first use (some seconds) and cached. numba decides by the one file in which a kernel is
written whether the cached kernel is outdated, but this folder's kernels call functions of neighbouring files. The cache
therefore lies in a folder named after a hash of all of these files. Nothing is written beside the sources, which may be
read-only once installed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import config, types
from numba.extending import intrinsic

from .kernel_cache import writable_cache

# Sums may be reordered and multiplications fused, so that loops over pixels can use vector registers. NaN and infinity
# keep their meaning.
FAST = {"reassoc", "contract", "arcp", "nsz", "afn"}

KERNEL_SOURCES = ("jit.py", "reference.py", "cpu_project.py", "cpu_tiles.py", "cpu_blend.py")


def cache_folder() -> Path:
    """A writable folder for compiled kernels: $NUMBA_CACHE_DIR, else the user's cache, else a temporary folder."""
    sources = hashlib.sha256()
    for source in KERNEL_SOURCES:
        sources.update(Path(__file__).with_name(source).read_bytes())
    return writable_cache(f"splatting-{sources.hexdigest()[:16]}", "NUMBA_CACHE_DIR")


_CACHE = str(cache_folder())
numba_config: Any = config
"""numba sets its options as attributes of this module when it is imported, which no type checker sees."""


def kernel(fast: bool = False) -> Callable:
    """Decorator: compile with numba, cached in `cache_folder()`. `fast` allows the float rules of `FAST`."""

    def decorate(function: Callable) -> Callable:
        before = numba_config.CACHE_DIR
        numba_config.CACHE_DIR = _CACHE
        try:
            return numba.njit(cache=True, nogil=True, fastmath=FAST if fast else False, error_model="numpy")(function)
        finally:
            numba_config.CACHE_DIR = before

    return decorate


@intrinsic
def _to_int(typing_context, value):
    """float32 → int32, towards zero, without numba's promotion to 64 bits."""

    def generate(context, builder, signature, arguments):
        return builder.fptosi(arguments[0], ir.IntType(32))

    return types.int32(types.float32), generate


@intrinsic
def _two_to_the(typing_context, power):
    """2**n as float32 for int32 n in [-126, 127]: the bits of a float hold its exponent from bit 23 on."""

    def generate(context, builder, signature, arguments):
        bias = ir.Constant(ir.IntType(32), 127)
        shift = ir.Constant(ir.IntType(32), 23)
        return builder.bitcast(builder.shl(builder.add(arguments[0], bias), shift), ir.FloatType())

    return types.float32(types.int32), generate


# Degree 5, least largest relative error for 2**x on [-0.5, 0.5]: 7.5e-8, about one unit of float32's last place.
_E0 = np.float32(1.0000000716554684)
_E1 = np.float32(0.693146967061733)
_E2 = np.float32(0.24022119719883317)
_E3 = np.float32(0.05550713276495926)
_E4 = np.float32(0.009675541550769662)
_E5 = np.float32(0.001327647163934631)
_HALF = np.float32(0.5)


@kernel(fast=True)
def exp2_of_negative(t):
    """2**t for float32 t in [-100, 0.5]; relative error under 3e-7. No branches, so that loops vectorise."""
    whole = _to_int(t - _HALF)  # pyright: ignore[reportCallIssue]  (numba passes the typing context)
    rest = t - np.float32(whole)
    polynomial = _E0 + rest * (_E1 + rest * (_E2 + rest * (_E3 + rest * (_E4 + rest * _E5))))
    return polynomial * _two_to_the(whole)
