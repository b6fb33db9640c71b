"""MONAI Label task ``biosam2_pathology``: polygons on slides, and the same for the models of pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from monailabel.datastore.dsa import DSADatastore
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType

from lib.engine.predictor import Predictor
from lib.errors import ImageNotFoundError, PromptError
from lib.images.medical_image import LPS_IDENTITY, Voxels, make_image
from lib.infers.task import Services, Stopwatch, devices
from lib.pathology.annotations import SlideAnswer, SlideObject, as_geojson, as_json, write_asap, write_dsa
from lib.pathology.automatic_segmentation import segment_nuclei
from lib.pathology.interactive import Outline, SlidePredictor
from lib.pathology.opening import open_slide
from lib.pathology.outlines import tidy
from lib.pathology.request import (
    DEFAULT_LABEL,
    MODES,
    Mode,
    SlideRequest,
    points_of,
    read_request,
    requested_channels,
    requested_mpp,
)
from lib.pathology.slide import Picture, Slide

NAME = "biosam2_pathology"


class SlideTask(InferTask):
    """Segments objects on a slide as polygons in level-0 pixels.

    Args:
        services: Parts that the app's tasks share.
        mode: Meaning of clicks and rectangles unless a request has a ``mode``.
    """

    def __init__(self, services: Services, mode: Mode = "each"):
        super().__init__(
            type=InferType.ANNOTATION,
            labels=list(services.labels) or [DEFAULT_LABEL],
            dimension=2,
            description=f"Slides. {MODES[mode]}",
            config={"device": devices(services.settings.device)},
        )
        self._services = services
        self._mode = mode

    def is_valid(self) -> bool:
        """Always true: weights are loaded by the first request."""
        return True

    def info(self) -> dict[str, Any]:
        """Entry of ``/info/``. QuPath's tool for clicks lists the models with ``nuclick``."""
        return {**super().info(), "nuclick": self._mode == "each", "pathology": True}

    def __call__(self, request: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
        """Answers a request.

        Args:
            request: ``image``, a path or pixels uint8 (H, W, 3) of the region at ``location``; ``output``:
                ``asap`` (default), ``dsa``, ``geojson`` or ``json``; ``mpp``, ``channels``; the rest as in
                ``lib.pathology.request``.

        Returns:
            Path of the answer's file, None for JSON and GeoJSON, and the answer as JSON.

        Raises:
            BioSam2Error: The request is invalid, with the reason.
        """
        watch = Stopwatch()
        device = request.get("device") or self.config()["device"][0]
        predictor = self._services.engines.get(device[0] if isinstance(device, list) else device)
        with self._open(request) as slide:
            asked = read_request({"mode": self._mode, **request}, slide, self._services.labels)
            watch.lap("pre")
            found = self.find(asked, slide, predictor)
        watch.lap("infer")
        return self._answer(request, asked, found, predictor.name, watch)

    def _open(self, request: Mapping[str, Any]) -> Slide:
        image, settings = request["image"], self._services.settings
        slide: Slide
        if isinstance(image, np.ndarray):
            voxels = Voxels(image.swapaxes(0, 1)[:, :, None], LPS_IDENTITY, is_2d=True)
            x, y = (max(0, int(place)) for place in request.get("location") or (0, 0))
            slide = Picture(make_image(voxels, Path("region"), "raster"), x, y)
        else:
            channels = requested_channels(request) or settings.slide_channels
            slide = open_slide(image, self._services.images, channels)
        slide.mpp = requested_mpp(request) or slide.mpp or settings.slide_mpp
        return slide

    def classes(self) -> list[str]:
        """Classes of the answers."""
        return list(self._services.labels) or [DEFAULT_LABEL]

    def find(self, asked: SlideRequest, slide: Slide, predictor: Predictor) -> list[tuple[str, Outline]]:
        """Class and outline of every object; empty outlines for those that were not found."""
        on_slide = SlidePredictor(slide, predictor, asked.scale, asked.choice)
        if not asked.objects:
            answers = segment_nuclei(on_slide, asked.regions)
            return [(asked.label_at(answer.area.representative_point()), answer) for answer in answers]
        found: list[tuple[str, Outline]] = []
        for item in asked.objects:
            positives, negatives = points_of(item, True), points_of(item, False)
            if asked.mode == "each" and not item.boxes:
                found += [(item.label, answer) for answer in on_slide.each(positives, negatives)]
            else:
                box = item.boxes[0].in_plane(2) if item.boxes else None
                found.append((item.label, on_slide.one(positives, negatives, box)))
        return found

    def _answer(
        self,
        request: Mapping[str, Any],
        asked: SlideRequest,
        found: list[tuple[str, Outline]],
        weights: str,
        watch: Stopwatch,
    ) -> tuple[str | None, dict[str, Any]]:
        tidied = [
            SlideObject(label, tidy(item.area, asked.least_area, asked.scale), item.score)
            for label, item in found
        ]
        objects = [item for item in tidied if item.area.area >= max(asked.least_area, 1.0)]
        x, y, width, height = asked.bounds
        name = str(request.get("model") or NAME)
        answer = SlideAnswer(objects, self.classes(), name, self.description, (x, y), (width, height))
        watch.lap("post")
        facts = {"latencies": watch.latencies, "weights": weights, "not_found": len(found) - len(objects)}
        # MONAI Label's routes for slides always name the output, its route for images never does.
        output = request.get("output", "asap")
        if output == "asap":
            return str(write_asap(answer)), as_json(answer, facts)
        if output == "dsa":
            return str(write_dsa(answer, facts)), as_json(answer, facts)
        return None, as_geojson(answer) if output == "geojson" else as_json(answer, facts)


def slide_tasks(services: Services) -> dict[str, SlideTask]:
    """The tasks that answer on slides, by the names of the app's models.

    QuPath and the Digital Slide Archive let people choose among all models that the server shows.
    """
    return {
        NAME: SlideTask(services),
        "biosam2_point": SlideTask(services, "one"),
        "biosam2_box": SlideTask(services, "box"),
        "sam_2d": SlideTask(services, "one"),
    }


def answer_slide(
    tasks: Mapping[str, SlideTask], request: Mapping[str, Any], datastore: Datastore
) -> dict[str, Any]:
    """Answers MONAI Label's ``infer_wsi`` with one of these tasks.

    MONAI Label's own implementation splits a slide into tiles that meet at seams, on randomly chosen devices.

    Args:
        tasks: Tasks by the names of the app's models.
        request: ``model``, ``image`` (an id of the datastore or a path), ``output``, and the task's own keys.
        datastore: The app's datastore; a Digital Slide Archive sends only the region.

    Returns:
        ``file``, a path or None, and ``params``.

    Raises:
        BioSam2Error: The request is invalid, with the reason.
    """
    task = tasks.get(request["model"])
    if task is None:
        raise PromptError(
            f"Model {request['model']!r} does not segment slides (available: {', '.join(tasks)})"
        )
    asked = _with_image(request, datastore)
    path, params = task(asked)
    return {"file": path, "params": params}


def _with_image(request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any]:
    """The request with the path of its image, or with pixels where only an archive has the file."""
    name = request["image"]
    if Path(name).is_absolute():
        return dict(request)
    try:
        path = datastore.get_image_uri(name)
        if Path(path).exists():
            return {**request, "image": path}
        asked = {**request}
        if isinstance(datastore, DSADatastore):
            asked["annotations"] = datastore.get_annotations_by_image_id(name)
        return {**asked, "image": datastore.get_image(name, asked)}
    except OSError as error:
        # An archive's refusal over HTTP is an OSError as well.
        why = str(error).split("\n")[0]
        raise ImageNotFoundError(f"The image {name!r} cannot be loaded from the datastore: {why}") from error
