"""OHIF with MONAI Label's panel, as a person uses it: what is pressed is pressed in the page.

Voxel indices are those of OHIF's volume; they and the overlay's voxels are read through the objects that OHIF
leaves in the window.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Locator, Page, Request

# While other programs use the machine, the browser draws slowly in software, and compiles shaders at first.
LIMIT_MS = 90_000
# The overlay of the panel is always this segmentation.
SEGMENTATION = "1"
VIEWS = ("mpr-axial", "mpr-sagittal", "mpr-coronal")

_READY = """() => {
  try {
    const ids = [...window.services.viewportGridService.getState().viewports.keys()];
    const view = (id) => window.services.cornerstoneViewportService.getCornerstoneViewport(id);
    const loaded = (id) => window.cornerstone.cache.getVolume(view(id).getVolumeId()).loadStatus.loaded;
    return ids.length > 0 && ids.every((id) => view(id).getImageData().imageData && loaded(id));
  } catch { return false; }  // the services come one after another
}"""
PIXEL = """([id, index]) => {
  const viewport = window.services.cornerstoneViewportService.getCornerstoneViewport(id);
  const world = viewport.getImageData().imageData.indexToWorld(index);
  viewport.jumpToWorld(world);
  viewport.render();
  const [x, y] = viewport.worldToCanvas(world);
  const box = viewport.element.getBoundingClientRect();
  return [box.left + x, box.top + y];
}"""
_MIDDLE = """(id) => {
  const viewport = window.services.cornerstoneViewportService.getCornerstoneViewport(id);
  return [...viewport.getImageData().imageData.worldToIndex(viewport.getCamera().focalPoint)];
}"""
_POINTS = "() => window.cornerstoneTools.annotation.state.getAllAnnotations().length"
_OVERLAY = """(id) => {
  const volume = window.services.segmentationService.getLabelmapVolume(id);
  if (!volume) return null;
  const voxels = new Uint8Array(volume.voxelManager.getCompleteScalarDataArray());
  let text = '';
  for (let start = 0; start < voxels.length; start += 32768)
    text += String.fromCharCode(...voxels.subarray(start, start + 32768));
  return {shape: volume.dimensions, voxels: btoa(text)};
}"""
_IMAGE = """(id) => {
  const view = window.services.cornerstoneViewportService.getCornerstoneViewport(id);
  const volume = window.cornerstone.cache.getVolume(view.getVolumeId());
  const voxels = volume.voxelManager.getCompleteScalarDataArray();
  return {shape: volume.dimensions, voxels: Array.from(voxels)};
}"""
_SEGMENTS = """(id) => Object.fromEntries(Object.values(
  window.services.segmentationService.getSegmentation(id).segments
).filter(Boolean).map((segment) => [segment.label, segment.segmentIndex]))"""
_SUBMIT = """async ([id, url, params]) => {
  const volume = window.services.segmentationService.getLabelmapVolume(id);
  const form = new FormData();
  form.append('params', JSON.stringify(params));
  form.append('label', new Blob([volume.voxelManager.getCompleteScalarDataArray()]), 'label.bin');
  const answer = await fetch(url, {method: 'PUT', body: form});
  return [answer.status, await answer.text()];
}"""
_EXPORT = """(id) => {
  const [dataSource] = window.extensionManager.getActiveDataSource();
  window.commandsManager.run('storeSegmentation', {segmentationId: id, dataSource}, 'SEGMENTATION');
}"""
_COUNT_CHANGES = """() => {
  window.overlayChanges = 0;
  window.cornerstone.eventTarget.addEventListener(
    'CORNERSTONE_TOOLS_SEGMENTATION_DATA_MODIFIED', () => { window.overlayChanges += 1; });
}"""


@dataclass(frozen=True)
class Exchange:
    """A request of the page and what the server answered.

    Attributes:
        url: with its query.
        params: the JSON that was sent.
        status: of HTTP.
        body: of the answer.
    """

    url: str
    params: dict[str, Any]
    status: int
    body: bytes


class Ohif:
    """A page with OHIF on one study.

    Args:
        page: of a browser.
        server: the server's address.
        pictures: folder of screenshots.
    """

    def __init__(self, page: Page, server: str, pictures: Path) -> None:
        self.page = page
        self.server = server
        self._pictures = pictures
        page.set_default_timeout(LIMIT_MS)

    def open(self, study_uid: str) -> None:
        """Opens the MONAI Label mode on a study, and waits until its images are there."""
        self.page.goto(f"{self.server}/ohif/monai-label?StudyInstanceUIDs={study_uid}")
        self.wait()

    def wait(self) -> None:
        """Waits until every view shows a volume."""
        self.page.wait_for_function(_READY)

    def connect(self) -> None:
        """Enters the server's address and presses the arrow beside it."""
        self.page.fill("#monailabelServerURL", f"{self.server}/")
        with self.page.expect_response(lambda answer: answer.url.endswith("/info/")) as answer:
            self.page.locator("button.actionButton").first.click()
        assert answer.value.ok
        self.tab("Point Prompts").locator("label.tab-label").wait_for()
        self.page.wait_for_function(
            "(id) => window.services.segmentationService.getLabelmapVolume(id)", arg=SEGMENTATION
        )
        self.page.evaluate(_COUNT_CHANGES)
        # They would cover the lower buttons of the panel.
        self.tidy()

    def tab(self, title: str) -> Locator:
        """The part of the panel below a title."""
        return self.page.locator("div.tab", has=self.page.locator("label.tab-label", has_text=title))

    def unfold(self, title: str) -> Locator:
        """Opens the part of the panel below a title."""
        tab = self.tab(title)
        if not tab.locator("input.tab-switch").is_checked():
            tab.locator("label.tab-label").click()
        return tab

    def choose(self, model: str) -> None:
        """Chooses a model for point prompts. It forgets the points, as OHIF does at every choice."""
        self.unfold("Point Prompts").locator("select.selectBox").select_option(model)

    def label(self, name: str) -> None:
        """Presses a row of the labels: the points that follow are of that label."""
        self.unfold("Point Prompts").locator("tr.clickable-row", has_text=name).click()

    def labels(self) -> list[str]:
        """The rows of the labels, from above."""
        rows = self.unfold("Point Prompts").locator("tr.clickable-row")
        return [text.strip() for text in rows.all_inner_texts()]

    def click(self, index: Sequence[int], view: str = "mpr-axial") -> None:
        """Scrolls a view to a voxel and clicks on it."""
        before = self.page.evaluate(_POINTS)
        x, y = self.page.evaluate(PIXEL, [view, list(index)])
        self.page.mouse.click(x, y)
        # OHIF waits whether a second click makes it a double click.
        self.page.wait_for_function(f"(before) => ({_POINTS})() > before", arg=before)

    def run(self) -> Exchange:
        """Presses Run, and waits until the overlay shows the answer."""
        before = self.page.evaluate("window.overlayChanges")
        button = self.unfold("Point Prompts").get_by_role("button", name="Run")
        exchange = self.exchange("/infer/", "POST", button.click)
        self.page.wait_for_function("(before) => window.overlayChanges > before", arg=before)
        return exchange

    def exchange(self, path: str, method: str, press: Callable[[], None]) -> Exchange:
        """The request to a path that pressing something leads to, with its answer."""

        def fits(request: Request) -> bool:
            return path in request.url and request.method == method

        with self.page.expect_request_finished(fits) as finished:
            press()
        request = finished.value
        answer = request.response()
        assert answer is not None
        return Exchange(request.url, _params(request), answer.status, answer.body())

    def options(self, section: str, name: str, values: Mapping[str, object]) -> None:
        """Changes options in the dialog of options, and confirms."""
        self.page.get_by_text("Options / Configurations").click()
        form = self.page.locator(".optionsForm")
        form.locator("select[name=selectSection]").select_option(section)
        form.locator("select[name=selectName]").select_option(name)
        for key, value in values.items():
            field = form.locator(f"[id='{section}{name}{key}']")
            is_choice = field.evaluate("element => element.tagName === 'SELECT'")
            (field.select_option if is_choice else field.fill)(str(value))
        self.page.get_by_role("button", name="Confirm", exact=True).click()
        form.wait_for(state="detached")

    def submit(self, series_uid: str, names: Mapping[str, int]) -> tuple[int, str]:
        """Sends the overlay as MONAI Label's client for OHIF does, for which the panel has no button.

        Args:
            series_uid: of the image.
            names: what each value is called.

        Returns:
            Status and text of the answer.
        """
        label_info = [{"name": name, "idx": value} for name, value in names.items()]
        url = f"{self.server}/datastore/label?image={series_uid}"
        status, text = self.page.evaluate(_SUBMIT, [SEGMENTATION, url, {"label_info": label_info}])
        return status, text

    def export(self, name: str) -> Exchange:
        """Runs OHIF's own export of segmentations, for which the mode has no button, to its data source."""
        self.page.evaluate(_EXPORT, SEGMENTATION)
        self.page.get_by_text("Enter the report name").wait_for()
        self.page.locator("input:focus").fill(name)
        button = self.page.get_by_role("button", name="Save", exact=True)
        return self.exchange("/proxy/dicom/wado/studies", "POST", button.click)

    def image(self, view: str = "mpr-axial") -> np.ndarray:
        """The image's voxels as OHIF has them, float64 ``[i, j, k]``."""
        volume = self.page.evaluate(_IMAGE, view)
        return np.asarray(volume["voxels"], np.float64).reshape(volume["shape"][::-1]).T

    def middle(self, view: str) -> list[float]:
        """The voxel index ``[i, j, k]`` in the middle of a view."""
        return list(self.page.evaluate(_MIDDLE, view))

    def show(self, index: Sequence[int]) -> None:
        """Scrolls all views to a voxel."""
        for view in VIEWS:
            self.page.evaluate(PIXEL, [view, list(index)])

    def tidy(self) -> None:
        """Closes the notice about investigational use, and waits until others are gone."""
        button = self.page.get_by_role("button", name="Confirm and Hide")
        if button.is_visible():
            button.click()
        self.page.wait_for_function("() => !document.querySelector('[data-sonner-toast]')")

    def overlay(self) -> np.ndarray:
        """The overlay's voxels, uint8 ``[i, j, k]``."""
        return _array(self.page.evaluate(_OVERLAY, SEGMENTATION))

    def segments(self) -> dict[str, int]:
        """What each value of the overlay is called."""
        return dict(self.page.evaluate(_SEGMENTS, SEGMENTATION))

    def screenshot(self, name: str) -> Path:
        """Keeps a picture of the page."""
        self._pictures.mkdir(parents=True, exist_ok=True)
        path = self._pictures / f"{name}.png"
        self.page.screenshot(path=path)
        return path


def _array(volume: dict[str, Any]) -> np.ndarray:
    voxels = np.frombuffer(base64.b64decode(volume["voxels"]), np.uint8)
    return voxels.reshape(volume["shape"][::-1]).T


def _params(request: Request) -> dict[str, Any]:
    """The JSON of a body, or of the ``params`` part of a form; nothing of DICOM."""
    if "dicom" in request.headers.get("content-type", ""):
        return {}
    body = request.post_data or "{}"
    return dict(json.loads(body[body.index("{") : body.rindex("}") + 1]))
