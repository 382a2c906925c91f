"""Seeded damage to the content of files: what disks, networks and careless programs do, and what strangers may write.

Damage of bytes (flipped, cut, repeated, overwritten) stays at the surface of archives with checksums. Therefore the
parts of archives, of safetensors files and of JSON are also changed by their structure and packed again.
"""

from __future__ import annotations

import io
import json
import random
import re
import struct
import zipfile
from collections.abc import Callable
from typing import Any, Final

ODD_NUMBERS: Final = (
    *("0", "-1", "1e999", "NaN", "-Infinity", "1e-400", "3.5", "2147483648", "-2147483649"),
    *("9223372036854775808", "99999999999999999999999999", "1e999999999", "1/0", "0x10", "١٢"),
)
ODD_VALUES: Final = (
    *(None, True, 0, -1, 3.5, 10**30, float("nan"), float("inf")),
    *("", "x" * 5000, "../..", [], {}, [[[]]]),
)
ODD_SHAPES: Final = ((), (0,), (1,), (10**9,), (2**62, 4), (3, 3), (0, 10**9), (-1,), (5, 5, 5, 5))
ODD_KINDS: Final = (
    *("<f2", "<f4", "<f8", ">f8", "<i8", "|u1", "|b1"),
    *("<U3", "<U100000", "|S0", "<c16", "<M8[s]", "|O", "|V8"),
)
_CODES: Final = b"02(ltdRb\x81N}])suae\x85\x86"
"""Instructions of pickles that move, call and build."""
_NUMBER: Final = re.compile(rb"-?\d+(\.\d+)?")


def damaged(name: str, content: bytes, draw: random.Random) -> tuple[str, bytes]:
    """What was done, in words, and the damaged content of the file `name`."""
    kind = name.rpartition(".")[2]
    structural: Callable[[bytes, random.Random], tuple[str, bytes]] | None = {
        "npz": _in_archive,
        "effigy": _in_tensors,
        "checkpoint": _in_tensors,
        "json": _in_json,
        "stamp": _in_json,
        "attempt": _in_json,
        "csv": _in_text,
        "txt": _in_text,
        "yaml": _in_text,
        "pkl": _in_pickle,
    }.get(kind)
    if structural and draw.random() < 0.6:
        return structural(content, draw)
    return _in_bytes(content, draw)


def _in_bytes(content: bytes, draw: random.Random) -> tuple[str, bytes]:
    way = draw.choice(("flip", "flip", "cut", "overwrite", "repeat", "remove", "number", "append"))
    data, at = bytearray(content), draw.randrange(max(1, len(content)))
    # Most of what steers a reader stands at the start and at the end.
    at = draw.choice((at, at, draw.randrange(max(1, min(200, len(data)))), max(0, len(data) - 1 - draw.randrange(200))))
    span = draw.choice((1, 2, 4, 16, 300))
    match way:
        case "flip":
            for _ in range(draw.choice((1, 1, 3, 20))):
                if data:
                    data[draw.randrange(len(data)) if draw.random() < 0.5 else at] ^= 1 << draw.randrange(8)
        case "cut":
            del data[at:]
        case "overwrite":
            data[at : at + span] = draw.choice((b"\0", b"\xff", b"9", b"<")) * span
        case "repeat":
            data[at:at] = data[at : at + span] * draw.choice((1, 10, 1000))
        case "remove":
            del data[at : at + span]
        case "number":
            number = draw.choice((0, 1, 2**31 - 1, 2**32 - 1, 60_000, 2**63 - 1))
            layout = draw.choice(("<I", ">I", "<Q", ">Q", "<H", ">H"))
            size = struct.calcsize(layout)
            data[at : at + size] = struct.pack(layout, number & (256**size - 1))
        case "append":
            data += draw.randbytes(span)
    return f"{way} at {at} of {len(content)}", bytes(data)


def _in_text(content: bytes, draw: random.Random) -> tuple[str, bytes]:
    way = draw.choice(("number", "number", "line", "cells", "quote", "null"))
    lines = content.split(b"\n")
    row = draw.randrange(len(lines))
    match way:
        case "number":
            return _number_replaced(content, draw)
        case "line":
            half = lines[row][: len(lines[row]) // 2]
            lines[row:row] = draw.choice(([lines[row]] * 50, [b""] * 5, [b"," * 100_000], [half]))
        case "cells":
            cells = lines[row].split(b",")
            draw.shuffle(cells)
            lines[row] = b",".join(cells * draw.choice((0, 1, 2)))
        case "quote":
            lines[row] = b'"' + lines[row]
        case "null":
            lines[row] += draw.choice((b"\0", b"\xff", b"\xe2\x80\xae", b"\r", b";", b"\t"))
    return f"{way} in line {row + 1}", b"\n".join(lines)


def _number_replaced(content: bytes, draw: random.Random) -> tuple[str, bytes]:
    found = list(_NUMBER.finditer(content))
    if not found:
        return _in_bytes(content, draw)
    match, number = draw.choice(found), draw.choice(ODD_NUMBERS)
    return (
        f"{match[0].decode()} at {match.start()} becomes {number}",
        content[: match.start()] + number.encode() + content[match.end() :],
    )


def _in_json(content: bytes, draw: random.Random) -> tuple[str, bytes]:
    try:
        value = json.loads(content)
    except ValueError:
        return _in_bytes(content, draw)
    way = draw.choice(("number", "value", "value", "value", "nest"))
    if way == "number":
        return _number_replaced(content, draw)
    if way == "nest":
        depth = draw.choice((100, 20_000))
        return f"nested {depth} deep", b'{"schema":' * depth + content
    said = _changed_somewhere(value, draw)
    return said, json.dumps(value).encode()


def _changed_somewhere(value: Any, draw: random.Random) -> str:
    """Replace or remove one entry of nested lists and dictionaries; returns what was done."""
    place, path = value, ""
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return "nothing"
        key = draw.choice(keys)
        path += f"/{key}"
        inner = place[key]
        if isinstance(inner, (dict, list)) and inner and draw.random() < 0.7:
            place = inner
            continue
        if isinstance(place, dict) and draw.random() < 0.2:
            del place[key]
            return f"{path} is removed"
        place[key] = odd = draw.choice(ODD_VALUES)
        return f"{path} becomes {str(odd)[:20]!r}"


def _in_archive(content: bytes, draw: random.Random) -> tuple[str, bytes]:
    import numpy as np

    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = draw.choice(list(members))
    way = draw.choice(("shape", "kind", "values", "values", "values", "remove", "header", "rename", "method", "bytes"))
    said, method = f"{way} of {name}", zipfile.ZIP_DEFLATED
    array = np.load(io.BytesIO(members[name]), allow_pickle=False)
    header_end = members[name].index(b"\n") + 1
    header = members[name][:header_end].decode("latin1")
    match way:
        case "shape":
            shape = draw.choice(ODD_SHAPES)
            said += f" becomes {shape}"
            header = re.sub(r"'shape': \([^)]*\)", f"'shape': {shape}", header)
            members[name] = _npy(header) + members[name][header_end:]
        case "kind":
            kind = draw.choice(ODD_KINDS)
            said += f" becomes {kind}"
            header = re.sub(r"'descr': '[^']*'", f"'descr': '{kind}'", header)
            members[name] = _npy(header) + members[name][header_end:]
        case "values":
            members[name], done = _values_changed(array, draw)
            said += f": {done}"
        case "remove":
            del members[name]
        case "header":
            members[name] = members[name][: draw.randrange(header_end)] + members[name][header_end:]
        case "rename":
            members[draw.choice(("../x.npy", "x" * 3000, "/etc/passwd", "."))] = members.pop(name)
        case "bytes":
            done, members[name] = _in_bytes(members[name], draw)
            said += f": {done}"
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as packed:
        for member, data in members.items():
            packed.writestr(member, data)
    data = stream.getvalue()
    if way == "method":
        # In the directory: a compression that does not exist, encryption, or a size that is not so.
        place = data.index(b"PK\1\2") + draw.choice((8, 10, 20, 24, 42))
        data = data[:place] + struct.pack("<H", draw.choice((1, 9, 12, 14, 93, 99, 65_535))) + data[place + 2 :]
    return said, data


def _values_changed(array: Any, draw: random.Random) -> tuple[bytes, str]:
    """An array's file with other values or of another size, and what was done."""
    import numpy as np

    way = draw.choice(("nan", "huge", "zero", "one", "negative", "short", "long", "transposed", "flat", "noise"))
    numbers = array.dtype.kind in "fiu"
    with np.errstate(all="ignore"):
        if array.ndim == 0 and not numbers:
            array, way = np.array(draw.choice(("", "x" * 100_000, "\0", "é"))), "text"
        elif way == "nan" and array.dtype.kind == "f":
            array = array.copy()
            array.flat[draw.randrange(array.size) if array.size else slice(0)] = np.nan
        elif way == "huge" and numbers:
            array = array.copy()
            array.flat[: max(1, array.size // 2)] = (
                np.finfo(array.dtype).max if array.dtype.kind == "f" else np.iinfo(array.dtype).max
            )
        elif way in ("zero", "one") and numbers:
            array = np.full_like(array, way == "one")
        elif way == "negative" and array.dtype.kind in "fi":
            array = -array - (array.dtype.kind == "i")
        elif way == "short" and array.ndim:
            array = array[: len(array) // 2]
        elif way == "long" and array.ndim:
            array = np.concatenate((array, array))
        elif way == "transposed":
            array = array.T
        elif way == "noise" and array.dtype.kind == "f":
            generator = np.random.default_rng(draw.getrandbits(32))
            array = (array + generator.normal(0, 10.0 ** draw.randint(-3, 3), array.shape)).astype(array.dtype)
        else:
            array, way = array.reshape(-1), "flat"
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue(), way


def _npy(header: str) -> bytes:
    """The header of an array's file with its length made right."""
    body = header[10:].encode("latin1")
    return header[:8].encode("latin1") + struct.pack("<H", len(body)) + body


def _in_tensors(content: bytes, draw: random.Random) -> tuple[str, bytes]:
    length = struct.unpack_from("<Q", content)[0]
    header = json.loads(content[8 : 8 + length])
    body = content[8 + length :]
    way = draw.choice(("own", "own", "own", "list", "values", "length"))
    said = way
    match way:
        case "own":
            own = json.loads(header["__metadata__"]["effigy"])
            said = _changed_somewhere(own, draw)
            header["__metadata__"]["effigy"] = json.dumps(own)
        case "list":
            said = _changed_somewhere(header, draw)
        case "values":
            said, body = _in_bytes(body, draw)
            body = body[: len(content) - 8 - length].ljust(len(content) - 8 - length, b"\x7f")
        case "length":
            length = draw.choice((0, 1, 2**63, length - 1, length + 1, 10**8))
            return f"the header's length becomes {length}", struct.pack("<Q", length) + content[8:]
    text = json.dumps(header).encode()
    return said, struct.pack("<Q", len(text)) + text + body


def _in_pickle(content: bytes, draw: random.Random) -> tuple[str, bytes]:
    """Instructions that are put in or changed near the start or the end, where pickles hold few raw numbers."""
    data = bytearray(content)
    if draw.random() < 0.3:
        return _number_replaced(content, draw)
    at = draw.choice((draw.randrange(400), max(0, len(data) - 1 - draw.randrange(400))))
    added = bytes(draw.choices(_CODES, k=draw.choice((1, 2, 5))))
    if draw.random() < 0.5:
        data[at : at + len(added)] = added
    else:
        data[at:at] = added
    return f"{added!r} at {at}", bytes(data)
