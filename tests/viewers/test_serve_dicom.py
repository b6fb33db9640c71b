"""``make serve-dicom``: from an empty folder to a mask in OHIF, and nothing left after Ctrl-C."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from sample_study.case import Case
from sample_study.files import make_cases
from sample_study.orthanc import free_port
from tests.support.client import read_nrrd
from tests.support.phantoms import dice
from tests.support.server import REPOSITORY, START_LIMIT_S, copy_model_folder, environment
from tests.viewers.clicks import deepest
from tests.viewers.ohif import Ohif

STOP_LIMIT_S = 40
GOOD = 0.85


class Command:
    """The command as a process with a log."""

    def __init__(self, workdir: Path) -> None:
        self.port = free_port()
        self._log = workdir / "serve.log"
        arguments = ["--folder", str(workdir / "dicom"), "--port", str(self.port)]
        arguments += ["--conf", "model_dir", str(copy_model_folder(workdir / "model"))]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "sample_study.serve_dicom", *arguments],
                cwd=REPOSITORY,
                env=environment(workdir),
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def address(self) -> str:
        """Where the server is, once the command has said where OHIF is."""
        give_up = time.monotonic() + START_LIMIT_S
        while time.monotonic() < give_up and self.process.poll() is None:
            if found := re.search(r"OHIF: open (http://\S+)/ohif/", self.log):
                return found.group(1)
            time.sleep(0.2)
        raise AssertionError(f"it does not say where OHIF is:\n{self.log[-4000:]}")

    @property
    def log(self) -> str:
        """All that it has written so far."""
        return self._log.read_text(errors="replace")


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    command = Command(tmp_path_factory.mktemp("serve"))
    yield command
    if command.process.poll() is None:
        command.process.terminate()
        command.process.wait(STOP_LIMIT_S)


@pytest.fixture
def page(new_page: Callable[[str], Ohif], command: Command) -> Ohif:
    return new_page(command.address())


def inside(mask: np.ndarray, k: int) -> list[int]:
    """The voxel ``[i, j, k]`` of a slice that is deepest inside."""
    return [*deepest(mask[:, :, k]), k]


def sample(name: str) -> Case:
    return next(case for case in make_cases() if case.name == name)


def enter(page: Ohif, patient: str) -> None:
    """From the list of studies into the mode, as a person goes."""
    page.page.goto(f"{page.server}/ohif/")
    page.page.get_by_text(patient, exact=True).first.click()
    page.page.get_by_text("MONAI Label", exact=True).first.click()
    page.wait()
    page.tidy()
    page.connect()


def test_1_a_click_on_the_ct(page: Ohif) -> None:
    case = sample("abdomen_ct")
    enter(page, "abdomen_ct")
    page.choose("biosam2_point")
    assert set(page.labels()) == {"background", *case.labels, "lesion", "ventricles", "brain"}
    truth = case.mask("spleen")
    click = inside(truth, int(np.argmax(truth.sum((0, 1)))))
    page.label("spleen")
    page.click(click)
    page.run()
    k = click[2]
    overlay = page.overlay() == page.segments()["spleen"]
    assert dice(overlay[:, :, k], truth[:, :, k]) >= GOOD
    page.tidy()
    page.screenshot("ohif_point")


def test_2_several_organs_through_the_ct(page: Ohif) -> None:
    case = sample("abdomen_ct")
    enter(page, "abdomen_ct")
    page.choose("biosam2_multi")
    names = ("spleen", "right kidney", "left kidney")
    for name in names:
        truth = case.mask(name)
        page.label(name)
        page.click(inside(truth, int(np.argmax(truth.sum((0, 1))))))
    sent, _ = read_nrrd(page.run().body)
    overlay, segments = page.overlay(), page.segments()
    for name in names:
        assert np.array_equal(overlay == segments[name], sent == case.labels[name])
        assert dice(overlay == segments[name], case.mask(name)) >= GOOD
    page.show(inside(case.mask("left kidney"), 20))
    page.tidy()
    page.screenshot("ohif_multi")


def test_3_the_mr_is_there_too(page: Ohif) -> None:
    case = sample("head_mr")
    enter(page, "head_mr")
    assert np.array_equal(page.image(), case.image)


def test_4_an_interruption_ends_the_server_and_orthanc(command: Command) -> None:
    orthanc = int(re.search(r"series: http://127\.0\.0\.1:(\d+)", command.log).group(1))
    os.kill(command.process.pid, signal.SIGINT)
    assert command.process.wait(STOP_LIMIT_S) == 0
    for port in (command.port, orthanc):
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0
    assert "Traceback" not in command.log
