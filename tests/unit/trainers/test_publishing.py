"""A training that is killed at any moment leaves weights that load, and the next one can start."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support import killed_training
from tests.support.launcher import run_script
from tests.support.server import environment


def test_kill_9_at_five_moments(labelled, model_dir, tmp_path):
    script = Path(killed_training.__file__)
    output = run_script(script, [model_dir.parent], environment(tmp_path), tmp_path)
    result = json.loads(output.splitlines()[-1])
    assert len(result["served"]) == 5
    # Whatever was published last is served: a version's name, or the base before the first.
    assert all(name == "biosam2_mini" or name in result["versions"] for name in result["served"])
    assert result["last"] in ("published", "kept")
    assert result["left_over"] == []
