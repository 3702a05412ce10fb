"""What became of every job, and whether that is as it must be."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from benchmarks.chaos_support.payloads import Verdict

LOST = "SERVER_UNAVAILABLE"  # what the client says by itself where no reply came in time


@dataclass
class Tally:
    """Counts of one run."""

    sent: int = 0
    answers: int = 0
    errors: Counter[str] = field(default_factory=Counter)  # by code; without the lost
    refused: int = 0  # times that a stopping server refused a job, which was handed in again
    lost: int = 0  # no reply within the timeout
    twice: int = 0  # more replies than requests on the wire
    verdicts: Counter[Verdict] = field(default_factory=Counter)
    leaked: dict[str, int] = field(default_factory=dict)  # slots that did not come back, by ring

    @property
    def crossed(self) -> int:
        """Answers that hold bytes of another job."""
        return self.verdicts[Verdict.FOREIGN] + self.verdicts[Verdict.TORN]

    def broken(self, allowed: frozenset[str]) -> list[str]:
        """The invariants that do not hold; `allowed` are error codes that these faults explain."""
        accounted = self.answers + self.errors.total() + self.lost
        found = {
            f"{self.sent} sent, {accounted} accounted for": accounted != self.sent,
            f"{self.lost} jobs lost": self.lost,
            f"{self.twice} answered twice": self.twice,
            f"{self.crossed} answers with bytes of another job": self.crossed,
            f"slots leaked: {self.leaked}": sum(self.leaked.values()),
        }
        broken = [text for text, wrong in found.items() if wrong]
        return broken + [f"{count} unexplained {code}" for code, count in self.errors.items() if code not in allowed]

    def lines(self) -> list[str]:
        """The counts, for people."""
        errors = ", ".join(f"{code} {count}" for code, count in sorted(self.errors.items())) or "none"
        return [
            f"sent               {self.sent:10,d}",
            f"answers            {self.answers:10,d}",
            f"named errors       {self.errors.total():10,d}   ({errors})",
            f"lost               {self.lost:10,d}",
            *([f"refused for a time {self.refused:10,d}"] if self.refused else []),
            f"answered twice     {self.twice:10,d}",
            f"cross-job bytes    {self.crossed:10,d}",
            f"slots leaked       {sum(self.leaked.values()):10,d}",
        ]


def taken_slots(status: dict[str, Any]) -> dict[str, int]:
    """Slots that are not free, by ring, in a server's status; and jobs and their pictures that it still knows."""
    taken = {"jobs": status["jobs"], "held": status["gateway"]["held"], "shared pictures": status["shared_pictures"]}
    for name, model in status["models"].items():
        for ring in ("rows", "outputs"):
            taken[f"{name} {ring}"] = model[ring]["slots"] - model[ring]["free"]
    for ring in status["gateway"]["ingress"]:
        taken[f"ingress {ring['slot_size']}"] = ring["slots"] - ring["free"]
    return {name: count for name, count in taken.items() if count}
