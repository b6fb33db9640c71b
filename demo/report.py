"""The demo's tables, and the check of its masks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import mean, median

from demo.session import Session

# Smallest mean Dice over the structures with which the demo succeeds.
NEEDED = {"3 clicks": 0.85, "box": 0.90, "volume": 0.85}
_COLUMNS = ("1 click", "3 clicks", "box", "volume")


@dataclass(frozen=True)
class DemoResult:
    """Mean Dice by kind of prompt.

    Attributes:
        means: Mean Dice by column; NaN without values.
    """

    means: dict[str, float]

    @property
    def failures(self) -> list[str]:
        """A sentence for each mean that is too low."""
        return [
            f"{name}: mean Dice {self.means[name]:.3f} is below {needed:.2f}"
            for name, needed in NEEDED.items()
            if not self.means[name] >= needed
        ]


def scores(session: Session) -> dict[str, float]:
    """Dice by column; a picture has no volume."""
    found = {"1 click": session.clicked[0].dice, "3 clicks": session.clicked[-1].dice}
    if session.boxed is not None:
        found["box"] = session.boxed.dice
    if session.propagated is not None:
        found["volume"] = session.propagated.dice
    return found


def judge(sessions: Iterable[Session]) -> DemoResult:
    """Means over the structures."""
    rows = [scores(session) for session in sessions]
    means = {}
    for name in _COLUMNS:
        values = [row[name] for row in rows if name in row]
        means[name] = mean(values) if values else float("nan")
    return DemoResult(means)


def table(sessions: Sequence[Session]) -> str:
    """Dice of every structure, the means and the required means, as text."""
    lines = [_line("image", "structure", _COLUMNS)]
    for session in sessions:
        found = scores(session)
        cells = [f"{found[name]:.3f}" if name in found else "" for name in _COLUMNS]
        lines.append(_line(session.target.case.name, session.target.label, cells))
    means = judge(sessions).means
    lines.append(_line("mean", "", [f"{means[name]:.3f}" for name in _COLUMNS]))
    lines.append(_line("needed", "", [f"{NEEDED[name]:.2f}" if name in NEEDED else "" for name in _COLUMNS]))
    return "\n".join(lines)


def latencies(sessions: Sequence[Session]) -> str:
    """Median response times as text: first click on a slice, other prompts on it, a whole volume."""
    waits: dict[str, list[float]] = {"first click on a slice": [], "any other on it": [], "whole volume": []}
    visited = set()
    for session in sessions:
        on_slice = [*session.clicked, *([session.boxed] if session.boxed else [])]
        place = session.target.case.name, session.target.middle
        for answer in on_slice:
            waits["any other on it" if place in visited else "first click on a slice"].append(answer.seconds)
            visited.add(place)
        if session.propagated is not None:
            waits["whole volume"].append(session.propagated.seconds)
    return "\n".join(
        f"{name:<24}{1000 * median(values):>8.0f} ms" for name, values in waits.items() if values
    )


def _line(image: str, structure: str, cells: Iterable[str]) -> str:
    return f"{image:<12}{structure:<14}" + "".join(f"{cell:>10}" for cell in cells)
