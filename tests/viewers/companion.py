"""The annotation toolbar in OHIF, used with mouse and keys as a person does."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any

import nibabel as nib
import numpy as np
from playwright.sync_api import Response

from tests.viewers.ohif import PIXEL, Ohif

STEPS = 4  # mouse moves between two points of a stroke
SETTLE_MS = 400


_MARKS = """() => window.cornerstoneTools.annotation.state.getAllAnnotations().filter(
  (mark) => ['Probe', 'RectangleROI', 'BioSAM2Freehand'].includes(mark.metadata.toolName)).length"""


@dataclass(frozen=True)
class Answer:
    """An inference request of the toolbar and its answer.

    Attributes:
        sent: Parameters of the request.
        status: HTTP status.
        mask: Mask of the answer, bool ``[i, j, k]``; None where the request was refused.
        text: Body of a refusal.
    """

    sent: dict[str, Any]
    status: int
    mask: np.ndarray | None
    text: str


class Companion:
    """The toolbar on a page.

    Args:
        ohif: Page with OHIF.

    Attributes:
        actions: Number of clicks, strokes and keys so far.
        dialogs: Questions that the page asked.
        accept: Answer to these questions.
    """

    def __init__(self, ohif: Ohif) -> None:
        self.ohif = ohif
        self.page = ohif.page
        self.actions = 0
        self.dialogs: list[str] = []
        self.accept = True
        self.page.on("dialog", self._dialog)

    def open(self, study_uid: str) -> None:
        """Opens a study and waits for the toolbar."""
        self.ohif.open(study_uid)
        self.ready()

    def reload(self) -> None:
        """Reloads the page."""
        self.page.reload()
        self.ohif.wait()
        self.ready()

    def ready(self) -> None:
        """Waits until the toolbar has connected the panel and shows the segments."""
        self.page.wait_for_selector(".biosam2-toolbar [data-segment]")
        self.page.wait_for_timeout(SETTLE_MS)

    def press(self, action: str) -> None:
        """Presses a button of the toolbar."""
        self.actions += 1
        self.page.click(f"[data-action={action}]")

    def key(self, key: str) -> None:
        """Presses a key."""
        self.actions += 1
        self.page.keyboard.press(key)

    def segment(self, label: str) -> None:
        """Chooses the segment that is drawn."""
        self.actions += 1
        self.page.click(f"[data-segment='{label}']")

    def add_segment(self, label: str) -> None:
        """Adds a segment by its name."""
        self.page.fill(".biosam2-toolbar input", label)
        self.page.press(".biosam2-toolbar input", "Enter")
        self.page.wait_for_selector(f"[data-segment='{label}']")

    def click(self, index: Sequence[int], view: str = "mpr-axial") -> Answer:
        """Clicks on a voxel, in live mode, and returns what the server answered."""
        x, y = self.place(index, view)
        return self.answer(lambda: self.page.mouse.click(x, y))

    def drag(self, indices: Sequence[Sequence[float]], view: str = "mpr-axial") -> Answer:
        """Draws with the mouse through voxels of one slice."""
        places = [self.place(index, view) for index in indices]

        def draw() -> None:
            self.page.mouse.move(*places[0])
            self.page.mouse.down()
            for place in places[1:]:
                self.page.mouse.move(*place, steps=STEPS)
            self.page.mouse.up()

        return self.answer(draw)

    def place(self, index: Sequence[float], view: str) -> tuple[float, float]:
        """Scrolls a view to a voxel, moves the mouse there and returns its pixel on the page."""
        x, y = self.page.evaluate(PIXEL, [view, [float(value) for value in index]])
        self.page.mouse.move(x, y)
        self.page.wait_for_timeout(SETTLE_MS)
        return x, y

    def answer(self, act: Callable[[], None]) -> Answer:
        """Does something that leads to an inference, and waits until its answer is drawn."""
        self.actions += 1
        with self.page.expect_response(lambda response: "/infer/" in response.url) as found:
            act()
        self.idle()
        return read_answer(found.value)

    def idle(self) -> None:
        """Waits until no request of the toolbar runs."""
        self.page.wait_for_function(
            "() => !document.querySelector('.biosam2-toolbar').textContent.includes('Segmenting ...')"
        )
        self.page.wait_for_timeout(SETTLE_MS)

    def save(self) -> None:
        """Saves the label and waits for the notification."""
        self.press("save")
        self.notice("The label is saved.")

    def load_offered(self) -> None:
        """Takes the stored label that the toolbar offers, by keyboard, and waits until the overlay has it."""
        self.actions += 1
        self.page.focus("[data-action=offered]")
        self.page.keyboard.press("Enter")
        self.page.wait_for_function("() => !document.querySelector('[data-action=undo]').disabled")
        self.page.locator("[data-action=offered]").wait_for(state="detached")

    def notice(self, text: str) -> None:
        """Waits for a notification that contains a text."""
        self.page.get_by_text(text).first.wait_for()

    def picture(self, name: str) -> None:
        """Keeps a picture of the page for the docs, without what covers it."""
        self.ohif.tidy()
        self.ohif.screenshot(name)

    def overlay(self, label: str) -> np.ndarray:
        """Voxels of a segment, bool ``[i, j, k]``."""
        return self.ohif.overlay() == self.ohif.segments()[label]

    def marks(self) -> int:
        """Number of prompts that are shown."""
        return int(self.page.evaluate(_MARKS))

    def until_marks(self, count: int) -> None:
        """Waits until so many prompts are shown."""
        self.page.wait_for_function(f"(count) => ({_MARKS})() === count", arg=count)

    def _dialog(self, dialog: Any) -> None:
        self.dialogs.append(dialog.message)
        dialog.accept() if self.accept else dialog.dismiss()


def read_answer(response: Response) -> Answer:
    """Request and answer of an inference."""
    content = response.request.post_data_buffer  # Chromium keeps none of a form that has a file
    headers = response.request.headers
    sent = _part(content, headers["content-type"], "params") if content else b"{}"
    body = response.body()
    if response.status != 200:
        return Answer(json.loads(sent), response.status, None, body.decode())
    image = _part(body, response.headers["content-type"], "image")
    mask = nib.Nifti1Image.from_bytes(gzip.decompress(image))
    return Answer(json.loads(sent), response.status, np.asarray(mask.dataobj) > 0, "")


def _part(body: bytes, content_type: str, name: str) -> bytes:
    """A part of a multipart body."""
    header = f"Content-Type: {content_type}\r\n\r\n".encode()
    message = BytesParser(policy=HTTP).parsebytes(header + body)
    for part in message.iter_parts():
        if part.get_param("name", header="content-disposition") == name:
            content = part.get_payload(decode=True)
            assert isinstance(content, bytes)
            return content
    raise AssertionError(f"no part {name!r}")
