"""CVAT with MONAI Label's serverless functions: what they send, and what they make of the answer."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from monailabel.transform.post import FindContoursd
from PIL import Image

from tests.support.client import Answer, Client


@dataclass(frozen=True)
class Cvat:
    """One person's CVAT.

    Args:
        client: of the server.
        folder: for the pictures that are sent.
        model: that the functions were deployed with.
        client_id: of the functions' client library; nobody sets it.
    """

    client: Client
    folder: Path
    model: str = "sam_2d"
    client_id: str | None = None

    def interact(self, frame: np.ndarray, **prompts: Any) -> np.ndarray:
        """The interactor: ``pos_points``, ``neg_points`` and ``obj_bbox`` of a frame to a mask (H, W)."""
        params: dict[str, Any] = {"output": "mask", "foreground": [], "background": [], **prompts}
        return self._mask(self._send(frame, params))

    def track(self, frame: np.ndarray, shape: Sequence[float]) -> tuple[list[list[int]], Answer]:
        """The tracker: a frame and an object's last shape to shapes, one if all is well."""
        params = {"output": "json", "roi": np.array(shape).astype(int).tolist()}
        answer = self._send(frame, params)
        return shapes_of(self._mask(answer)), answer

    def follow(self, frames: np.ndarray, box: Sequence[int]) -> list[np.ndarray]:
        """A person draws a box on the first frame and steps through the others; masks of all frames.

        On the first step CVAT asks for the first frame too, and uses no more of the answer than its state,
        of which this tracker has none.
        """
        _, first = self.track(frames[0], box)
        masks, shape = [self._mask(first)], list(box)
        for frame in frames[1:]:
            shapes, answer = self.track(frame, shape)
            shape = shapes[0] if shapes else shape
            masks.append(self._mask(answer))
        return masks

    def _send(self, frame: np.ndarray, params: dict[str, Any]) -> Answer:
        file = self.folder / "tmpk3x.jpg"
        Image.fromarray(frame).save(file)
        return self.client.segment(self.model, "", {**params, "client_id": self.client_id}, file=file)

    @staticmethod
    def _mask(answer: Answer) -> np.ndarray:
        return np.array(Image.open(io.BytesIO(answer.file.content))).astype(np.uint8)


def shapes_of(mask: np.ndarray) -> list[list[int]]:
    """The tracker's shapes of a mask (H, W): the box around each thing that MONAI Label finds in it.

    Raises:
        ValueError: the mask has several pieces or holes of some size: the function of CVAT ends here too.
    """
    found = FindContoursd(keys="pred")({"pred": mask}).get("result", {}).get("annotation", {})
    shapes = []
    for element in found.get("elements", []):
        rows, columns = np.array(element["contours"], dtype=int).reshape(-1, 2).T
        shapes.append([int(v) for v in (columns.min(), rows.min(), columns.max(), rows.max())])
    return shapes
