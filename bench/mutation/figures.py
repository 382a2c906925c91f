"""The figures of a bench of breaks: how many were noticed in each room, and which were not."""

from __future__ import annotations

import datetime
import os
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .trial import Break, Outcome

HEADING: Final = "## Figures"
"""Where the written part of a page begins; what stands above it is kept."""


@dataclass(frozen=True)
class Figures:
    seed: int
    budget: float
    """Processor seconds of tests for each break."""
    drawn: int
    rooms: Mapping[str, tuple[int, int]]
    """Folder -> (tried, noticed)."""
    unnoticed: Sequence[tuple[str, str, Sequence[str]]]
    """(place, kind of the change, lines of its diff)."""

    @staticmethod
    def of(breaks: Sequence[Break], outcomes: Mapping[int, Outcome], tree: Path, seed: int, budget: float) -> Figures:
        """The figures of those breaks whose number has an outcome; `tree` holds the sources without a change."""
        tried, noticed = Counter(), Counter()
        unnoticed = []
        for number, outcome in sorted(outcomes.items()):
            change = breaks[number]
            room = "/".join(change.file.split("/")[:2])
            tried[room] += 1
            noticed[room] += outcome.noticed
            if not outcome.noticed:
                place = f"{change.file}:{change.mutation.line}"
                lines = change.difference((tree / change.file).read_text("utf-8"))
                unnoticed.append((place, change.mutation.kind, lines))
        rooms = {room: (tried[room], noticed[room]) for room in sorted(tried)}
        return Figures(seed, budget, len(breaks), rooms, unnoticed)

    @property
    def tried(self) -> int:
        return sum(tried for tried, _ in self.rooms.values())

    @property
    def noticed(self) -> int:
        return sum(noticed for _, noticed in self.rooms.values())

    def table(self) -> str:
        rows = [(f"`{room}`", tried, noticed) for room, (tried, noticed) in self.rooms.items()]
        lines = [
            f"| {room} | {tried} | {noticed} ({100 * noticed / max(tried, 1):.0f} %) |"
            for room, tried, noticed in (*rows, ("all", self.tried, self.noticed))
        ]
        return "\n".join(("| room | breaks | noticed |", "|---|--:|--:|", *lines))

    def markdown(self) -> str:
        now = datetime.datetime.now(datetime.UTC)
        ended = "" if self.tried == self.drawn else f" The run was ended after {self.tried} of its {self.drawn} breaks."
        share = 100 * self.noticed / max(self.tried, 1)
        text = (
            f"{HEADING}\n\nSeed {self.seed}, {now:%d %B %Y}, {os.cpu_count()} cores, Python "
            f"{platform.python_version()}, {self.budget:g} processor seconds of tests for each break.{ended}\n\n"
            f"**{self.noticed} of {self.tried} breaks noticed, {share:.0f} %** (aim: 85 %).\n\n{self.table()}\n"
        )
        if self.unnoticed:
            text += "\nNot noticed:\n"
        for place, kind, lines in self.unnoticed:
            text += "\n".join((f"\n`{place}`, {kind}:\n", "```diff", *lines, "```\n"))
        return text

    def write_into(self, page: Path) -> None:
        """Replace the page from its heading "Figures" to its end, or make the page."""
        before = page.read_text("utf-8").split(HEADING)[0] if page.is_file() else ""
        page.write_text(before + self.markdown(), "utf-8")
