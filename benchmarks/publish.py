"""From the last runs to RESULTS.md and the README: ``python -m benchmarks.publish``.

The benchmarks leave a whole report (``<name>.md``) and a short one (``<name>_short.md``). The whole ones go
to ``benchmarks/RESULTS.md``, the short ones between the README's markers. What was not run stays as it is.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
RESULTS = Path(__file__).resolve().parent / "RESULTS.md"
# File of the report, section of the README and of RESULTS.md.
SECTIONS = {
    "accuracy": "accuracy",
    "latency": "speed",
    "finetuning": "finetuning",
    "scoring_manners": "scoring",
    "signals": "signals",
    "active_learning": "active-learning",
}

_LINK = "More numbers: [benchmarks/RESULTS.md](benchmarks/RESULTS.md)."

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
    """Leaves a report that is short enough for the README as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in (f"{name}.md", f"{name}_short.md"):
        (folder / file).write_text(text, encoding="utf-8")


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


def publish(reports: Path, readme: Path, results: Path) -> list[str]:
    """Write the reports that are there.

    Returns:
        The sections that were written.
    """
    whole = results.read_text(encoding="utf-8") if results.exists() else _EMPTY_RESULTS
    short = readme.read_text(encoding="utf-8")
    written = []
    for name, section in SECTIONS.items():
        if not (reports / f"{name}.md").is_file():
            continue
        whole = replace_section(whole, section, (reports / f"{name}.md").read_text(encoding="utf-8"))
        brief = (reports / f"{name}_short.md").read_text(encoding="utf-8")
        short = replace_section(short, section, f"{brief}\n{_LINK}")
        written.append(section)
    results.write_text(whole, encoding="utf-8")
    readme.write_text(short, encoding="utf-8")
    return written


def main(argv: list[str] | None = None) -> None:
    """Publish and say what."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.publish", description=__doc__)
    parser.add_argument("--reports", type=Path, default=ROOT / "outputs" / "benchmarks")
    options = parser.parse_args(argv)
    written = publish(options.reports, README, RESULTS)
    print(f"written: {', '.join(written) or 'nothing'}; RESULTS.md and README.md")


if __name__ == "__main__":
    main()
