"""Reading of a FLAME `.pkl` without executing code from the file.

A pickle is a small program that can call any function of any installed package. FLAME's pickles need only arrays,
sparse matrices, chumpy's array class and plain containers. This reader replaces each of these classes by an inert
placeholder, which only stores its arguments, and refuses every other name. NumPy, SciPy and chumpy get no data from the
file before the arrays are rebuilt here from raw buffers of plain numbers.
"""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, Self

import numpy as np
import scipy.sparse

from ..errors import EffigyError
from ..file_kinds import MODEL_KEYS, kind_of_model_keys
from ..reading import Damaged, read_bytes, reading, shown

REMEDY: Final = "download it again"
MOST_BYTES: Final = 512 * 2**20
"""Of a pickle, and of all arrays in it together; FLAME's largest has 110 MB."""
MOST_STEPS: Final = 1_000_000
"""Instructions of a pickle. FLAME's have a few hundred, one per array and name."""
_MOST_NUMBER: Final = 64
"""Bytes of a single number."""


def load_restricted_pickle(path: Path) -> Any:
    """The arrays and containers of a pickle (Python 2 or 3). Sparse matrices come back as dense arrays."""
    data = b""
    try:
        with reading(path, "head model", REMEDY):
            data = read_bytes(path, "head model", MOST_BYTES, REMEDY)
            return _Rebuilt().plain(_Unpickler(data).load())
    except _Refused as error:
        if (kind := kind_of_model_keys({key for key in MODEL_KEYS if key in data})) is not None:
            raise EffigyError(f"{path} is {kind.name}, where a head model is needed: {kind.advice}.") from None
        raise EffigyError(f"{path} was not opened: {error}") from None


class _Refused(EffigyError):
    """A pickle that does what no head model does; the message continues the sentence "… was not opened: "."""


_PythonUnpickler: Any = pickle._Unpickler
"""The type checkers know nothing of its methods."""


class _Unpickler(_PythonUnpickler):
    """Python's own unpickler in its Python form, in which every instruction can be looked at.

    The compiled one trusts the lengths and numbers in a file: it allocates a table for the largest index that is noted
    in the file (8 GB for one instruction), and it hashes nested tuples, which takes exponential time.
    """

    def __init__(self, data: bytes) -> None:
        self._left = MOST_STEPS
        super().__init__(io.BytesIO(data), encoding="latin1")

    def find_class(self, module: str, name: str) -> Any:
        found = _ALLOWED.get((module, name))
        if found is None:
            raise _Refused(
                f"it asks for {shown(f'{module}.{name}')}, which a head model has no use for and which could run a "
                "program. Only open head files that come from their makers."
            )
        return found

    def persistent_load(self, pid: Any) -> Any:
        raise _Refused("it refers to objects outside of the file, which a head model never does.")

    def step(self, instruction: Callable[[_Unpickler], None]) -> None:
        self._left -= 1
        if self._left < 0:
            raise _Refused(f"it has more than {MOST_STEPS:,} instructions, far beyond any head model.")
        instruction(self)

    def load_setitem(self) -> None:
        _check_keys(self.stack[-2:-1])
        super().load_setitem()

    def load_setitems(self) -> None:
        _check_keys(self.stack[::2])
        super().load_setitems()

    def load_dict(self) -> None:
        _check_keys(self.stack[::2])
        super().load_dict()

    def load_set(self) -> None:
        # chumpy's arrays keep sets of what changed, which nobody needs here.
        self.append(_Object())

    def load_frozenset(self) -> None:
        self.pop_mark()
        self.append(_Object())

    def load_additems(self) -> None:
        self.pop_mark()

    def load_bytearray8(self) -> None:
        # Python's own allocates as much as the file claims.
        (length,) = struct.unpack("<Q", self.read(8))
        self.append(bytearray(self.read(length)))


def _check_keys(keys: list[Any]) -> None:
    """Hashing a nested tuple in which each level holds the one below twice takes exponential time."""
    plain = (str, bytes, int, float, type(None))
    for key in keys:
        if not isinstance(key, plain) and not (isinstance(key, tuple) and all(isinstance(part, plain) for part in key)):
            raise _Refused("it names its parts by something other than text or numbers.")


_OWN_STEPS: Final = {
    pickle.SETITEM: _Unpickler.load_setitem,
    pickle.SETITEMS: _Unpickler.load_setitems,
    pickle.DICT: _Unpickler.load_dict,
    pickle.EMPTY_SET: _Unpickler.load_set,
    pickle.FROZENSET: _Unpickler.load_frozenset,
    pickle.ADDITEMS: _Unpickler.load_additems,
    pickle.BYTEARRAY8: _Unpickler.load_bytearray8,
}
_Unpickler.dispatch = {
    code: partial(lambda instruction, unpickler: unpickler.step(instruction), instruction)
    for code, instruction in (pickle._Unpickler.dispatch | {name[0]: own for name, own in _OWN_STEPS.items()}).items()
}


class _Function:
    """Wraps an allowed function so that a pickle can call it but not change its attributes (BUILD sets those)."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise _Refused("it tries to change a function, which a head model never does.")


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
            raise _Refused("it holds an array of Python objects where numbers are expected.")
        # One letter of bool, integer, unsigned, float or complex, then the size: nothing with fields or sub-arrays.
        if code[:1] not in tuple("biufcSU") or not code[1:].isdigit():
            raise _Refused(f"it holds an array of the unknown kind “{shown(code)}”.")
        order = _text(self.state[1]) if isinstance(self.state, tuple) and len(self.state) > 1 else "="
        return np.dtype(code).newbyteorder(order if order in ("<", ">", "=", "|") else "=")


class _Array(_Object):
    """numpy's ndarray; state is (version, shape, dtype, Fortran order, raw bytes)."""


class _Encoded(_Object):
    """Bytes that Python 3 has written as text for Python 2. They are encoded where they are needed."""

    text: str


class _Ordered(_Object):
    """An OrderedDict: its pairs come with its creation (Python 2) or one by one."""

    pairs: Any
    later: dict[Any, Any]

    def __new__(cls, *arguments: Any) -> Self:
        shell = super().__new__(cls)
        shell.pairs, shell.later = arguments[0] if arguments else (), {}
        return shell

    def __setitem__(self, key: Any, value: Any) -> None:
        self.later[key] = value


def _reconstruct(subtype: Any, shape: Any, typecode: Any) -> _Array:
    return _Array()


def _frombuffer(raw: Any, dtype: Any, shape: Any, order: str) -> _Array:
    """An array as numpy 2 writes it."""
    array = _Array()
    array.state = (1, shape, dtype, order == "F", raw)
    return array


def _new_object(kind: Any, base: Any, state: Any) -> Any:
    """`copyreg._reconstructor`, with which protocols 0 and 1 create an instance."""
    if not (isinstance(kind, type) and issubclass(kind, _Object)):
        raise _Refused("it builds an object of a kind that a head model never holds.")
    return kind()


def _scalar(dtype: _Dtype, raw: Any) -> Any:
    if len(raw.text if isinstance(raw, _Encoded) else raw) > _MOST_NUMBER:
        raise _Refused("it holds a single number of more bytes than any number has.")
    return np.frombuffer(_raw_bytes(raw), dtype.resolve())[0].item()


def _raw_bytes(raw: Any) -> bytes:
    # Python 2 wrote bytes as str; they arrive as text in which each character is one byte.
    if isinstance(raw, _Encoded):
        raw = raw.text
    if isinstance(raw, str):
        return raw.encode("latin1")
    if isinstance(raw, (bytes, bytearray)):
        return bytes(raw)
    raise _Refused("it holds an array of Python objects where numbers are expected.")


def _text(value: Any) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


def _encode(text: str, encoding: str = "latin1") -> _Encoded:
    """`_codecs.encode`, with which Python 3 writes bytes for Python 2. Other codecs are refused: they could decompress
    data.
    """
    if encoding not in ("latin1", "latin-1"):
        raise _Refused(f"it uses the text encoding “{shown(encoding)}”, which a head model never does.")
    encoded = _Encoded()
    encoded.text = str(text)
    return encoded


def _empty(*arguments: Any) -> _Encoded:
    """`bytes`, with which Python 3 writes the content of an empty array for Python 2. With a number, it would take as
    much memory.
    """
    if arguments:
        raise _Refused("it makes bytes in a way that a head model never does.")
    return _encode("")


def _ignored(*arguments: Any) -> _Object:
    return _Object()


def _allowed() -> dict[tuple[str, str], Any]:
    table: dict[tuple[str, str], Any] = {
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Dtype,
        ("_codecs", "encode"): _Function(_encode),
        ("collections", "OrderedDict"): _Ordered,
        ("chumpy.ch", "Ch"): _Chumpy,
        ("chumpy", "Ch"): _Chumpy,
    }
    for core in ("numpy.core", "numpy._core"):
        table[f"{core}.multiarray", "_reconstruct"] = _Function(_reconstruct)
        table[f"{core}.multiarray", "scalar"] = _Function(_scalar)
        table[f"{core}.numeric", "_frombuffer"] = _Function(_frombuffer)
    for module, rows in (("csc", _Sparse), ("csr", _SparseRows)):
        for path in (f"scipy.sparse.{module}", f"scipy.sparse._{module}"):
            table[path, f"{module}_matrix"] = rows
            table[path, f"{module}_array"] = rows
    for module in ("copy_reg", "copyreg"):
        table[module, "_reconstructor"] = _Function(_new_object)
    for module in ("__builtin__", "builtins"):
        table[module, "object"] = _Object
        table[module, "bytes"] = _Function(_empty)
        table[module, "set"] = _Function(_ignored)
        table[module, "frozenset"] = _Function(_ignored)
    return table


_ALLOWED = _allowed()


class _Rebuilt:
    """Replaces every placeholder within containers by its array, each once, and counts what that takes."""

    def __init__(self) -> None:
        self._made: dict[int, Any] = {}
        """By the `id` of the value in the pickle: a pickle may hold one value a billion times."""
        self._bytes_left = MOST_BYTES
        self._parts_left = MOST_STEPS

    def plain(self, value: Any) -> Any:
        if isinstance(value, (str, bytes, bytearray, int, float, complex, type(None))):
            return value
        if id(value) in self._made:
            made = self._made[id(value)]
            if made is _UNFINISHED:
                raise Damaged("it contains itself")
            return made
        self._made[id(value)] = _UNFINISHED
        self._made[id(value)] = made = self._new(value)
        return made

    def _new(self, value: Any) -> Any:
        if isinstance(value, _Array):
            return self._array(value)
        if isinstance(value, _Dtype):
            return value.resolve()
        if isinstance(value, _Encoded):
            return self._raw(value)
        if isinstance(value, _Chumpy):
            if not isinstance(value.state, dict) or "x" not in value.state:
                raise _Refused("it holds a chumpy expression instead of an array of numbers.")
            return np.asarray(self.plain(value.state["x"]))
        if isinstance(value, _Sparse):
            return self._dense(value)
        if isinstance(value, _Ordered):
            self._count_parts(len(value.pairs))
            _check_keys([key for key, _ in value.pairs])
            return self._new(dict(value.pairs) | value.later)
        if isinstance(value, dict):
            self._count_parts(len(value))
            return {key: self.plain(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            self._count_parts(len(value))
            return type(value)(self.plain(item) for item in value)
        return None

    def _array(self, shell: _Array) -> np.ndarray:
        _, shape, dtype, fortran, raw = shell.state
        kind = dtype.resolve()
        order: Literal["C", "F"] = "F" if fortran else "C"
        return np.frombuffer(self._raw(raw), kind).reshape(tuple(shape), order=order).astype(kind.newbyteorder("="))

    def _dense(self, shell: _Sparse) -> np.ndarray:
        state = self.plain(shell.state)
        shape = state.get("_shape") or state.get("shape")
        rows, columns = (int(size) for size in shape)
        self._count_bytes(rows * columns * state["data"].itemsize)
        kind = scipy.sparse.csr_matrix if shell.rows else scipy.sparse.csc_matrix
        matrix = kind((state["data"], state["indices"], state["indptr"]), shape=(rows, columns))
        matrix.check_format(full_check=True)  # Indices out of range would write outside of the dense array.
        return matrix.toarray()

    def _raw(self, raw: Any) -> bytes:
        self._count_bytes(len(raw.text if isinstance(raw, _Encoded) else raw))
        return _raw_bytes(raw)

    def _count_bytes(self, count: int) -> None:
        self._bytes_left -= count
        if count < 0 or self._bytes_left < 0:
            raise _Refused(f"its arrays have more than {MOST_BYTES / 1e6:.0f} MB, far beyond any head model.")

    def _count_parts(self, count: int) -> None:
        self._parts_left -= count
        if self._parts_left < 0:
            raise _Refused(f"it has more than {MOST_STEPS:,} parts, far beyond any head model.")


_UNFINISHED: Final = object()
