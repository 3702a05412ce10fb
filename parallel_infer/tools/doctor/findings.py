"""What `parallel-infer doctor` found: one line each, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Verdict(Enum):
    """How bad it is. A PROBLEM keeps the server from working, a WARNING makes it slower or smaller."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    verdict: Verdict
    text: str
    remedy: str = ""  # what to do; empty where all is well

    @classmethod
    def ok(cls, subject: str, text: str) -> Finding:
        return cls(subject, Verdict.OK, text)

    @classmethod
    def warning(cls, subject: str, text: str, remedy: str) -> Finding:
        return cls(subject, Verdict.WARNING, text, remedy)

    @classmethod
    def problem(cls, subject: str, text: str, remedy: str) -> Finding:
        return cls(subject, Verdict.PROBLEM, text, remedy)
