"""Copies the reports of the last runs into RESULTS.md: ``python -m benchmarks.publish``.

Each benchmark writes ``<name>.md``, which replaces its section of ``benchmarks/RESULTS.md``. Sections of
benchmarks that were not run stay as they are.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).resolve().parent / "RESULTS.md"
# File of the report, section of RESULTS.md.
SECTIONS = {
    "accuracy": "accuracy",
    "latency": "speed",
    "finetuning": "finetuning",
    "scoring_load": "scoring",
    "signals": "signals",
    "active_learning": "active-learning",
}

_EMPTY_RESULTS = """\
# Results

Written by `python -m benchmarks.publish` from the last runs of `make bench`, `make bench-accuracy`,
`make bench-finetuning`, `make bench-scoring`, `make bench-signals` and `make bench-active-learning`.

## Accuracy

<!-- accuracy: begin -->
<!-- accuracy: end -->

## Speed

<!-- speed: begin -->
<!-- speed: end -->

## Fine-tuning

<!-- finetuning: begin -->
<!-- finetuning: end -->

## Clicks while scoring

<!-- scoring: begin -->
<!-- scoring: end -->

## Signals of uncertainty

<!-- signals: begin -->
<!-- signals: end -->

## Which image next

<!-- active-learning: begin -->
<!-- active-learning: end -->
"""


def write_report(text: str, folder: Path, name: str) -> None:
    """Writes the report of a benchmark."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.md").write_text(text, encoding="utf-8")


def replace_section(text: str, section: str, content: str) -> str:
    """The text with what stands between the markers ``<!-- section: begin ... -->`` and ``end`` replaced.

    Raises:
        ValueError: the text has no such pair of markers.
    """
    pattern = re.compile(rf"(<!-- {section}: begin[^\n]*-->\n).*?(<!-- {section}: end -->)", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(
            f"no lines '<!-- {section}: begin -->' and '<!-- {section}: end -->' to write between"
        )
    return pattern.sub(lambda found: f"{found[1]}{content.strip()}\n{found[2]}", text)


def publish(reports: Path, results: Path) -> list[str]:
    """Replaces the sections of the reports that are there.

    Args:
        reports: Folder of the reports.
        results: RESULTS.md; made where it is missing.

    Returns:
        Names of the sections that were written.
    """
    text = results.read_text(encoding="utf-8") if results.exists() else _EMPTY_RESULTS
    written = []
    for name, section in SECTIONS.items():
        if (reports / f"{name}.md").is_file():
            text = replace_section(text, section, (reports / f"{name}.md").read_text(encoding="utf-8"))
            written.append(section)
    results.write_text(text, encoding="utf-8")
    return written


def main(argv: list[str] | None = None) -> None:
    """Prints the names of the sections that were written."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.publish", description=__doc__)
    parser.add_argument("--reports", type=Path, default=ROOT / "outputs" / "benchmarks")
    options = parser.parse_args(argv)
    written = publish(options.reports, RESULTS)
    print(f"written: {', '.join(written) or 'nothing'}; RESULTS.md")


if __name__ == "__main__":
    main()
