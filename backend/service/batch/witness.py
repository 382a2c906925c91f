"""The witness of a running batch: a file in the batch's folder, by which a machine of a cluster shows that it shares
the folder.

As long as the batch runs, it holds the lock of its table (`output_lock`), so that no other batch works in the folder.
The witness that a killed batch has left is removed by the next one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from ...errors import EffigyError
from ...output_lock import OutputInUseError
from ...storage import held

_NAME: Final = re.compile(r"\.batch-[0-9a-f]{16}")


@contextmanager
def witness_in(out: Path, batch: str) -> Iterator[Path]:
    """Make the folder `out` and the witness of the batch with this name (16 hexadecimal digits), and remove the witness
    afterwards. Raises an `EffigyError` while another batch works in the folder.
    """
    out.mkdir(parents=True, exist_ok=True)
    path = out / f".batch-{batch}"
    with ExitStack() as locked:
        try:
            locked.enter_context(held(out / "batch.csv", "python -m backend batch"))
        except OutputInUseError as error:
            by = f" ({error.owner})" if error.owner else ""
            raise EffigyError(
                f"Another batch is working in {out}{by}: wait until it has ended, or choose another folder with --out."
            ) from error
        for other in out.iterdir():
            if _NAME.fullmatch(other.name) and other.is_file() and not other.is_symlink():
                with suppress(OSError):
                    other.unlink()
        try:
            path.write_text("A machine that works on this batch sees this file.\n", "utf-8")
            yield path
        finally:
            path.unlink(missing_ok=True)
