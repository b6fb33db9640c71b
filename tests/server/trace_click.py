"""Prints the app's files that a click passes through, in order: ``trace_click.py APP STUDIES MODELS``."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from fastapi.testclient import TestClient
from monailabel.config import settings

app_dir, studies, model_dir = (str(Path(argument).resolve()) for argument in sys.argv[1:4])
settings.MONAI_LABEL_APP_DIR = app_dir
settings.MONAI_LABEL_STUDIES = studies
settings.MONAI_LABEL_APP_CONF = {"model_dir": model_dir, "runtime": "torch", "prefetch": "0"}
settings.MONAI_LABEL_AUTO_UPDATE_SCORING = False
sys.path.insert(0, app_dir)

from monailabel.app import app as server  # noqa: E402

passed: dict[str, None] = {}
recording = threading.Event()
LIB = f"{app_dir}/lib/"


def note(frame: FrameType, event: str, argument: Any) -> None:
    """Notes the file of a function that is called."""
    if recording.is_set() and event == "call" and frame.f_code.co_filename.startswith(LIB):
        passed[frame.f_code.co_filename.removeprefix(LIB)] = None


def click(client: TestClient, x: int) -> None:
    """A click in the middle of the image, as OHIF sends it."""
    params = {"foreground": [[x, 32, 8]], "result_extension": ".nrrd"}
    answer = client.post(
        "/infer/biosam2_point?image=ct", data={"params": json.dumps(params)}, headers={"host": "localhost"}
    )
    answer.raise_for_status()


# Threads take it up when they start.
threading.setprofile(note)
with TestClient(server) as client:
    click(client, 30)
    recording.set()
    click(client, 34)
    recording.clear()
print("PASSED", " ".join(passed))  # noqa: T201
