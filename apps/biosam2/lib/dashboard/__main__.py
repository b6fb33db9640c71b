"""``python -m lib.dashboard --studies FOLDER``: writes the page about a datastore and its model."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from lib.dashboard.page import write_overview
from lib.settings import Settings

logger = logging.getLogger(__name__)

MODEL_DIR = Path(__file__).resolve().parents[2] / "model"


def main(argv: list[str] | None = None) -> None:
    """Writes the page."""
    parser = argparse.ArgumentParser(prog="python -m lib.dashboard", description=__doc__)
    parser.add_argument("--studies", type=Path, required=True, help="folder of the datastore")
    parser.add_argument("--model-dir", type=Path, default=MODEL_DIR, help="the folder with registry.yaml")
    parser.add_argument("--output", type=Path, default=Path("outputs") / "report.html")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if not options.studies.is_dir():
        parser.error(f"Folder {options.studies} does not exist; use the server's --studies folder")
    write_overview(options.studies, options.model_dir, options.output, Settings().max_voxels)
    logger.info("Written: %s", options.output)


if __name__ == "__main__":
    main()
