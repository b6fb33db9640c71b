import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def make(*arguments):
    result = subprocess.run(["make", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60)
    return result.returncode, result.stdout + result.stderr


def test_help_lists_every_target_with_a_text():
    _, listed = make("help")
    wanted = [
        "install",
        "serve",
        "demo",
        "fetch",
        "test",
        "lint",
        "format",
        "bench",
        "bench-accuracy",
        "clean",
    ]
    assert set(wanted) <= {line.split()[1] for line in listed.splitlines()}
    assert all(len(line.split()) > 3 for line in listed.splitlines())


def test_serve_passes_the_options_on():
    _, commands = make("-n", "serve", "PORT=8123", "STUDIES=/data/x", "CONF=model=some labels=liver,spleen")
    assert '--app apps/biosam2 --studies "/data/x" --host 127.0.0.1 --port 8123' in commands
    assert "--conf model some --conf labels liver,spleen" in commands
    assert "sample_study" not in commands


def test_batch_installs_ray_only_where_it_is_asked_for():
    options = ("STUDIES=/data/x", "MODEL=embed", "CONF=embedding_disk_gb=5")
    _, alone = make("-n", "batch", *options)
    assert '--studies "/data/x" --model embed' in alone
    assert "--conf embedding_disk_gb 5" in alone
    assert "ray" not in alone.replace("/ray/", "")
    _, together = make("-n", "batch", "RAY=auto", *options)
    assert "-r requirements-ray.txt" in together
    assert "--ray auto --conf embedding_disk_gb 5" in together


def test_without_a_python_that_fits_it_says_what_to_do(tmp_path):
    code, told = make("venv", f"VENV={tmp_path}/none", "PYTHON=")
    assert code != 0
    assert "make PYTHON=" in told
