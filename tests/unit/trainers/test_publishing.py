"""A training that is killed at any moment leaves weights that load, and the next one can start."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from tests.support.server import APP, REPOSITORY


def test_kill_9_at_five_moments(labelled, model_dir):
    path = os.pathsep.join([str(APP), str(REPOSITORY)])
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.killed_training", str(model_dir.parent)],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert len(result["served"]) == 5
    # Whatever was published last is served: a version's name, or the base before the first.
    assert all(name == "biosam2_mini" or name in result["versions"] for name in result["served"])
    assert result["last"] in ("published", "kept")
    assert result["left_over"] == []
