"""Reading of a FLAME `.pkl` without executing code from the file.

A pickle is a small program that can call any function of any installed package. FLAME's pickles need only arrays,
sparse matrices, chumpy's array class and plain containers. This reader replaces each of these classes by an inert
placeholder, which only stores its arguments, and refuses every other name. NumPy, SciPy and chumpy get no data from the
file before the arrays are rebuilt here from raw buffers of plain numbers.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import scipy.sparse

from ..errors import EffigyError


def load_restricted_pickle(path: Path) -> Any:
    """The arrays and containers of a pickle (Python 2 or 3). Sparse matrices come back as dense arrays."""
    try:
        with open(path, "rb") as file:
            content = _Unpickler(file, encoding="latin1").load()
        return _plain(content, path)
    except EffigyError as error:
        raise EffigyError(f"{path} was not opened: {error}") from None
    except OSError as error:
        raise EffigyError(f"{path} cannot be read: {error.strerror or error}.") from error
    except Exception as error:  # A damaged pickle can raise any exception; none of them is an error in our code.
        raise EffigyError(
            f"{path} is damaged or not a pickle of arrays ({type(error).__name__}); download it again."
        ) from error


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        found = _ALLOWED.get((module, name))
        if found is None:
            raise EffigyError(
                f"it asks for {module}.{name}, which a head model has no use for and which could run a program. "
                "Only open head files that come from their makers."
            )
        return found

    def persistent_load(self, pid: Any) -> Any:
        raise EffigyError("it refers to objects outside of the file, which a head model never does.")


class _Function:
    """Wraps an allowed function so that a pickle can call it but not change its attributes (BUILD sets those)."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise EffigyError("it tries to change a function, which a head model never does.")


class _Object:
    """Base class of the placeholders. Its `__setstate__` keeps BUILD from assigning attributes to the classes
    themselves.
    """

    def __init__(self, *arguments: Any) -> None:
        self.state: Any = None

    def __new__(cls, *arguments: Any) -> Self:
        shell = super().__new__(cls)
        shell.state = None
        return shell

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Sparse(_Object):
    rows = False


class _SparseRows(_Sparse):
    rows = True


class _Chumpy(_Object):
    """chumpy's `Ch`: its value is the attribute `x` (a plain one, not an expression)."""


class _Dtype(_Object):
    """numpy's dtype of plain numbers: a letter, a size in bytes and, in the state, a byte order."""

    code: str

    def __new__(cls, *arguments: Any) -> Self:
        shell = super().__new__(cls)
        shell.code = _text(arguments[0]) if arguments else ""
        return shell

    def resolve(self) -> np.dtype:
        code = self.code.lstrip("<>=|")
        if code[:1] == "O":
            raise EffigyError("it holds an array of Python objects where numbers are expected.")
        # One letter of bool, integer, unsigned, float or complex, then the size: nothing with fields or sub-arrays.
        if code[:1] not in tuple("biufcSU") or not code[1:].isdigit():
            raise EffigyError(f"it holds an array of the unknown kind {code!r}.")
        order = _text(self.state[1]) if isinstance(self.state, tuple) and len(self.state) > 1 else "="
        return np.dtype(code).newbyteorder(order if order in ("<", ">", "=", "|") else "=")


class _Array(_Object):
    """numpy's ndarray; state is (version, shape, dtype, Fortran order, raw bytes)."""

    def resolve(self) -> np.ndarray:
        _, shape, dtype, fortran, raw = self.state
        return _array_from(raw, dtype, shape, "F" if fortran else "C")


def _reconstruct(subtype: Any, shape: Any, typecode: Any) -> _Array:
    return _Array()


def _new_object(kind: Any, base: Any, state: Any) -> Any:
    """`copyreg._reconstructor`, with which protocols 0 and 1 create an instance."""
    if not (isinstance(kind, type) and issubclass(kind, _Object)):
        raise EffigyError("it builds an object of a kind that a head model never holds.")
    return kind()


def _scalar(dtype: _Dtype, raw: Any) -> Any:
    return np.frombuffer(_raw_bytes(raw), dtype.resolve())[0].item()


def _array_from(raw: Any, dtype: _Dtype, shape: Any, order: Literal["C", "F"]) -> np.ndarray:
    kind = dtype.resolve()
    return np.frombuffer(_raw_bytes(raw), kind).reshape(tuple(shape), order=order).astype(kind.newbyteorder("="))


def _raw_bytes(raw: Any) -> bytes:
    # Python 2 wrote bytes as str; they arrive as text in which each character is one byte.
    if isinstance(raw, str):
        return raw.encode("latin1")
    if isinstance(raw, (bytes, bytearray)):
        return bytes(raw)
    raise EffigyError("it holds an array of Python objects where numbers are expected.")


def _text(value: Any) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """`_codecs.encode`, with which Python 3 writes bytes for Python 2. Other codecs are refused: they could decompress
    data.
    """
    if encoding not in ("latin1", "latin-1"):
        raise EffigyError(f"it uses the text encoding {encoding!r}, which a head model never does.")
    return text.encode("latin1")


def _allowed() -> dict[tuple[str, str], Any]:
    table: dict[tuple[str, str], Any] = {
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Dtype,
        ("_codecs", "encode"): _Function(_encode),
        ("collections", "OrderedDict"): _Function(OrderedDict),
        ("chumpy.ch", "Ch"): _Chumpy,
        ("chumpy", "Ch"): _Chumpy,
    }
    for core in ("numpy.core", "numpy._core"):
        table[f"{core}.multiarray", "_reconstruct"] = _Function(_reconstruct)
        table[f"{core}.multiarray", "scalar"] = _Function(_scalar)
        table[f"{core}.numeric", "_frombuffer"] = _Function(_array_from)
    for module, rows in (("csc", _Sparse), ("csr", _SparseRows)):
        for path in (f"scipy.sparse.{module}", f"scipy.sparse._{module}"):
            table[path, f"{module}_matrix"] = rows
            table[path, f"{module}_array"] = rows
    for module in ("copy_reg", "copyreg"):
        table[module, "_reconstructor"] = _Function(_new_object)
    for module in ("__builtin__", "builtins"):
        table[module, "object"] = _Object
        table[module, "set"] = _Function(set)
        table[module, "frozenset"] = _Function(frozenset)
    return table


_ALLOWED = _allowed()


def _plain(value: Any, path: Path) -> Any:
    """Replace every placeholder within containers by its array."""
    if isinstance(value, _Array):
        return value.resolve()
    if isinstance(value, _Dtype):
        return value.resolve()
    if isinstance(value, _Chumpy):
        if not isinstance(value.state, dict) or "x" not in value.state:
            raise EffigyError("it holds a chumpy expression instead of an array of numbers.")
        return np.asarray(_plain(value.state["x"], path))
    if isinstance(value, _Sparse):
        return _dense(value, path)
    if isinstance(value, dict):
        return {_plain(key, path) if isinstance(key, tuple) else key: _plain(item, path) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(item, path) for item in value)
    if isinstance(value, _Object):
        return None
    return value


def _dense(shell: _Sparse, path: Path) -> np.ndarray:
    state = _plain(shell.state, path)
    shape = state.get("_shape") or state.get("shape")
    rows, columns = (int(size) for size in shape)
    if rows * columns > 50_000_000:
        raise EffigyError(f"it holds a sparse matrix of {rows} x {columns}, far beyond any head model.")
    kind = scipy.sparse.csr_matrix if shell.rows else scipy.sparse.csc_matrix
    matrix = kind((state["data"], state["indices"], state["indptr"]), shape=(rows, columns))
    matrix.check_format(full_check=True)  # Indices out of range would write outside of the dense array.
    return matrix.toarray()
