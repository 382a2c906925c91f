"""Whether EGL gives Blender a graphics context in the background."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Final

OPENGL_API: Final = 0x30A2
SURFACELESS: Final = 0x31DD
"""Mesa's platform without a screen."""
NONE: Final = 0x3038
SURFACE_TYPE, PBUFFER_BIT = 0x3033, 0x0001
RENDERABLE_TYPE, OPENGL_BIT = 0x3040, 0x0008
MAJOR_VERSION, MINOR_VERSION, PROFILE_MASK, CORE_PROFILE = 0x3098, 0x30FB, 0x30FD, 0x0001
"""Of EGL 1.5."""
VERSION: Final = 4, 3
"""Of OpenGL, the oldest that Blender takes."""


@cache
def gives_context() -> bool:
    """Whether the context for which Blender asks EGL in the background can be made. Without the libraries, without a
    driver behind them, or with one for an older OpenGL, Blender ends its process when it draws.
    """
    try:
        ctypes.CDLL("libGL.so.1")
        egl = ctypes.CDLL("libEGL.so.1")
        for name in ("eglGetDisplay", "eglGetPlatformDisplay", "eglCreateContext"):
            getattr(egl, name).restype = ctypes.c_void_p
    except (OSError, AttributeError):
        return False
    displays = lambda: egl.eglGetDisplay(None), lambda: egl.eglGetPlatformDisplay(SURFACELESS, None, None)
    # The first that can be initialised, as in Blender. It stays so: Blender gets the same one.
    display = next(
        (found for each in displays if (found := ctypes.c_void_p(each())) and _initialised(egl, found)), None
    )
    if display is None or not egl.eglBindAPI(OPENGL_API):
        return False
    config, count = ctypes.c_void_p(), ctypes.c_int()
    wanted = _attributes(SURFACE_TYPE, PBUFFER_BIT, RENDERABLE_TYPE, OPENGL_BIT)
    if not egl.eglChooseConfig(display, wanted, ctypes.byref(config), 1, ctypes.byref(count)) or not count.value:
        return False
    wanted = _attributes(MAJOR_VERSION, VERSION[0], MINOR_VERSION, VERSION[1], PROFILE_MASK, CORE_PROFILE)
    context = ctypes.c_void_p(egl.eglCreateContext(display, config, None, wanted))
    return bool(context) and bool(egl.eglDestroyContext(display, context))


def _initialised(egl: ctypes.CDLL, display: ctypes.c_void_p) -> bool:
    return bool(egl.eglInitialize(display, None, None))


def _attributes(*pairs: int) -> ctypes.Array[ctypes.c_int]:
    return (ctypes.c_int * (len(pairs) + 1))(*pairs, NONE)
