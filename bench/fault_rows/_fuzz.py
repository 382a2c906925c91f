"""Fuzzes one loader: python -m bench.fault_rows._fuzz FOLDER NAME SEED SECONDS (`fuzzing`, with Atheris).

FOLDER holds the samples; found.json in it receives what was found.
"""

from __future__ import annotations

import base64
import hashlib
import json
import random
import sys
import time
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench.fault_rows._mutations import damaged

if TYPE_CHECKING:
    from bench.fault_rows._loaders import Loader

LONGEST: Final = 30
"""Seconds for one input."""
MOST_MEGABYTES: Final = 4096
"""Memory of the process."""
SHOWN_BYTES: Final = 300
SAVED_EVERY: Final = 1.0
"""Seconds. libFuzzer ends the process by itself, without a last word to Python."""


@dataclass
class Found:
    tries: int = 0
    kept: int = 0
    """Inputs that reached new lines."""
    failures: list[str] = field(default_factory=list)
    """One for each place of the code from which an exception of another kind came, with an input that does it."""


class Fuzzed:
    """A loader with the file that is changed, and what was found so far."""

    def __init__(self, loader: Loader, folder: Path) -> None:
        self._loader, self._folder = loader, folder
        self.path = folder / loader.file
        self.sample = self.path.read_bytes()
        self.found = Found()
        self._places: set[str] = set()
        self._saved = 0.0

    def try_input(self, content: bytes) -> None:
        from backend.errors import EffigyError

        self.path.write_bytes(content)
        self.found.tries += 1
        try:
            self._loader.read(self._folder)
        except EffigyError:
            pass
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            name = f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}"
            if name not in self._places:
                self._places.add(name)
                shown = content if len(content) <= SHOWN_BYTES else hashlib.sha256(content).digest()
                text = base64.b64encode(shown).decode()
                self.found.failures.append(f"{name}: {str(error)[:200]} ({len(content)} bytes, {text})")
                (self._folder / f"failure-{len(self._places)}").write_bytes(content)
                self.save()
        if time.monotonic() - self._saved > SAVED_EVERY:
            self.save()

    def save(self) -> None:
        self._saved = time.monotonic()
        (self._folder / "found.json").write_text(json.dumps(asdict(self.found)), "utf-8")


def fuzz_unguided(loader: Loader, folder: Path, seed: int, tries: int) -> Found:
    """Try so many seeded mutations of the loader's sample: the same ones on a machine of any speed."""
    fuzzed, draw = Fuzzed(loader, folder), random.Random(f"{seed} {loader.name}")
    for _ in range(tries):
        fuzzed.try_input(damaged(fuzzed.path.name, fuzzed.sample, draw)[1])
    return fuzzed.found


def main() -> None:
    import atheris

    folder, name, seed, seconds = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    # Atheris counts the branches of modules that it has seen being imported.
    with atheris.instrument_imports(include=["backend", "zipfile", "pickle"]):
        from bench.fault_rows._loaders import loaders

        found = next(loader for loader in loaders() if loader.name == name)
    fuzzed = Fuzzed(found, folder)
    corpus = folder / "corpus"
    corpus.mkdir()
    (corpus / "sample").write_bytes(fuzzed.sample)

    def mutated(content: bytes, most: int, number: int) -> bytes:
        draw = random.Random(number)
        if draw.random() < 0.5:
            return atheris.Mutate(content, most)
        try:
            return damaged(fuzzed.path.name, content, draw)[1][:most]
        except Exception:
            # The content is so damaged that its structure cannot be changed any more.
            return atheris.Mutate(content, most)

    def try_input(content: bytes) -> None:
        fuzzed.found.kept = sum(1 for _ in corpus.iterdir()) - 1 if fuzzed.found.tries % 50 == 49 else fuzzed.found.kept
        fuzzed.try_input(content)

    arguments = [
        "-verbosity=1",
        "-print_final_stats=1",
        f"-max_total_time={seconds}",
        f"-seed={seed + 1}",
        f"-timeout={LONGEST}",
        f"-rss_limit_mb={MOST_MEGABYTES}",
        f"-max_len={2 * len(fuzzed.sample) + 100_000}",
        f"-artifact_prefix={folder}/",
        str(corpus),
    ]
    atheris.Setup([sys.argv[0], *arguments], try_input, custom_mutator=mutated)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
