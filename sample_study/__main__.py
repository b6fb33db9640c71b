"""Writes the sample study: ``python -m sample_study --output studies/sample``."""

from __future__ import annotations

import argparse
from pathlib import Path

from sample_study.files import SEED, truth_folder, write_study


def main() -> None:
    """Reads the command line and writes the study."""
    parser = argparse.ArgumentParser(prog="python -m sample_study", description="Write the sample study.")
    parser.add_argument("--output", type=Path, default=Path("studies/sample"), help="folder of the images")
    parser.add_argument("--seed", type=int, default=SEED, help="seed of the images")
    options = parser.parse_args()
    for path in write_study(options.output, options.seed):
        print(f"wrote {path}")
    print(f"the ground truth is in {truth_folder(options.output)}, outside the server's folder")


if __name__ == "__main__":
    main()
