"""Copies the reports of the last runs into RESULTS.md: ``python -m benchmarks.publish``.

Each benchmark writes ``<name>.md``, which replaces its section of ``benchmarks/RESULTS.md``. Sections of
benchmarks that were not run stay as they are.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).resolve().parent / "RESULTS.md"


@dataclass(frozen=True)
class Section:
    """One section of RESULTS.md.

    Attributes:
        name: Name in the markers.
        title: Heading.
        target: Make target of its benchmark.
    """

    name: str
    title: str
    target: str


# By file name of the report.
SECTIONS = {
    "accuracy": Section("accuracy", "Accuracy", "bench-accuracy"),
    "latency": Section("speed", "Speed", "bench"),
    "finetuning": Section("finetuning", "Fine-tuning", "bench-finetuning"),
    "scoring_load": Section("scoring", "Clicks while scoring", "bench-scoring"),
    "clients": Section("clients", "Many clients", "bench-clients"),
    "memory_growth": Section("memory", "Memory over many volumes", "bench-memory"),
    "signals": Section("signals", "Signals of uncertainty", "bench-signals"),
    "one_prompt": Section("one-prompt", "One prompt for many images", "bench-one-prompt"),
    "one_prompt_finetuned": Section(
        "one-prompt-finetuned", "One prompt with fine-tuned weights", "bench-one-prompt-finetuned"
    ),
    "video": Section("video", "Clips", "bench-video"),
    "propagation": Section("propagation", "Propagation from one box", "bench-propagation"),
    "auto_head": Section("auto-head", "Prompt-free classes against one prompt", "bench-auto-head"),
    "active_learning": Section("active-learning", "Which image next", "bench-active-learning"),
}

_HEAD = """\
# Results

`python -m benchmarks.publish` copies the reports of the last runs here. Each section names its command.
"""
_SECTION = """
## {title}

    make {target} && python -m benchmarks.publish

<!-- {name}: begin -->
<!-- {name}: end -->
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
    text = results.read_text(encoding="utf-8") if results.exists() else _empty_results()
    written = []
    for file, section in SECTIONS.items():
        if (reports / f"{file}.md").is_file():
            content = (reports / f"{file}.md").read_text(encoding="utf-8")
            if f"<!-- {section.name}: begin" not in text:
                text += _SECTION.format(**vars(section))
            text = replace_section(text, section.name, content)
            written.append(section.name)
    results.write_text(text, encoding="utf-8")
    return written


def _empty_results() -> str:
    return _HEAD + "".join(_SECTION.format(**vars(section)) for section in SECTIONS.values())


def main(argv: list[str] | None = None) -> None:
    """Prints the names of the sections that were written."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.publish", description=__doc__)
    parser.add_argument("--reports", type=Path, default=ROOT / "outputs" / "benchmarks")
    options = parser.parse_args(argv)
    written = publish(options.reports, RESULTS)
    print(f"written: {', '.join(written) or 'nothing'}; RESULTS.md")


if __name__ == "__main__":
    main()
