"""The first command that a person runs."""

import os
import subprocess
import sys

import pytest
from PIL import Image

from sample_study.orthanc import free_port
from tests.support.server import APP, REPOSITORY

pytestmark = [pytest.mark.server, pytest.mark.slow]


def test_the_demo_finds_the_server_good_enough(tmp_path):
    picture = tmp_path / "demo.png"
    arguments = ["--port", str(free_port()), "--studies", str(tmp_path / "sample"), "--picture", str(picture)]
    result = subprocess.run(
        [sys.executable, "-m", "demo", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": f"{APP}{os.pathsep}{REPOSITORY}"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Starting a server" in result.stdout
    with Image.open(picture) as image:
        assert image.width > 1000
