"""The way of a click, as a profiler sees it and as the page on the architecture tells it."""

from __future__ import annotations

import re
from pathlib import Path

import nibabel
import numpy as np

from tests.support.launcher import APP, run_script
from tests.support.server import copy_model_folder, environment

ROOT = Path(__file__).resolve().parents[2]
MOST_FILES = 20


def test_the_page_names_the_files_of_a_click_in_their_order(tmp_path: Path) -> None:
    studies = tmp_path / "studies"
    studies.mkdir()
    voxels = np.zeros((64, 64, 16), np.int16)
    voxels[20:44, 20:44, 4:12] = 100
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), studies / "ct.nii.gz")
    script, models = Path(__file__).parent / "trace_click.py", copy_model_folder(tmp_path / "models")
    output = run_script(script, [APP, studies, models], environment(tmp_path), tmp_path)
    passed = output.partition("PASSED ")[2].partition("\n")[0].split()
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    way = page.partition("## The way of a click")[2].partition("\n## ")[0]
    assert re.findall(r"^\d+\. `([\w/]+\.py)`", way, flags=re.MULTILINE) == passed
    assert len(passed) <= MOST_FILES
