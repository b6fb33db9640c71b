"""``biosam2_pathology``, and the other models of pictures on slides: polygons back."""

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
from lib.pathology.annotations import Annotation, Annotations, as_json, write_asap, write_dsa
from lib.pathology.automatic_segmentation import everything
from lib.pathology.interactive import Outline, Viewer
from lib.pathology.opening import open_slide
from lib.pathology.outlines import tidy
from lib.pathology.request import DEFAULT_LABEL, MODES, Mode, SlideRequest, points_of, read_request
from lib.pathology.slide import Picture, Slide


class SlideTask(InferTask):
    """Objects on a slide as polygons, in pixels of level 0.

    Args:
        services: what the app shares among its tasks.
        mode: what clicks and a rectangle mean, unless a request has a ``mode``.
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
        """Always: weights are looked for when a request needs them."""
        return True

    def info(self) -> dict[str, Any]:
        """What ``/info/`` shows. QuPath's tool for clicks lists the models with ``nuclick``."""
        return {**super().info(), "nuclick": self._mode == "each", "pathology": True}

    def __call__(self, request: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
        """Answers a request.

        Args:
            request: ``image``, a path or pixels uint8 (H, W, 3) of the region at ``location``; ``output``,
                ``asap`` (also where it is missing), ``dsa`` or ``json``; the rest as in
                ``lib.pathology.request``.

        Returns:
            The path of the answer's file, None for JSON, and the answer as JSON.

        Raises:
            BioSam2Error: With a reason, for whatever is wrong with the request.
        """
        watch = Stopwatch()
        device = request.get("device") or self.config()["device"][0]
        predictor = self._services.engines.get(device[0] if isinstance(device, list) else device)
        with self._open(request) as slide:
            asked = read_request({"mode": self._mode, **request}, slide, self._services.labels)
            watch.lap("pre")
            found = self._find(asked, slide, predictor)
        watch.lap("infer")
        return self._answer(request, asked, found, predictor.name, watch)

    def _open(self, request: Mapping[str, Any]) -> Slide:
        image = request["image"]
        if isinstance(image, np.ndarray):
            voxels = Voxels(image.swapaxes(0, 1)[:, :, None], LPS_IDENTITY, is_2d=True)
            x, y = (max(0, int(place)) for place in request.get("location") or (0, 0))
            return Picture(make_image(voxels, Path("region"), "raster"), x, y)
        return open_slide(image, self._services.images)

    @staticmethod
    def _find(asked: SlideRequest, slide: Slide, predictor: Predictor) -> list[tuple[str, Outline]]:
        """Class and outline of every object, also of those that were not found."""
        viewer = Viewer(slide, predictor, asked.scale)
        if not asked.objects:
            return [(asked.label, answer) for answer in everything(viewer, asked.regions)]
        found: list[tuple[str, Outline]] = []
        for item in asked.objects:
            positives, negatives = points_of(item, True), points_of(item, False)
            if asked.mode == "each" and not item.boxes:
                found += [(item.label, answer) for answer in viewer.each(positives, negatives)]
            else:
                box = item.boxes[0].in_plane(2) if item.boxes else None
                found.append((item.label, viewer.one(positives, negatives, box)))
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
            Annotation(label, tidy(item.area, asked.least_area, asked.scale), item.score)
            for label, item in found
        ]
        objects = [item for item in tidied if item.area.area >= max(asked.least_area, 1.0)]
        x, y, width, height = asked.bounds
        name = str(request.get("model") or "biosam2_pathology")
        labels = list(self._services.labels) or [DEFAULT_LABEL]
        annotations = Annotations(objects, labels, name, self.description, (x, y), (width, height))
        watch.lap("post")
        facts = {"latencies": watch.latencies, "weights": weights, "not_found": len(found) - len(objects)}
        # MONAI Label's routes for slides always say which, its route for images never does.
        output = request.get("output", "asap")
        answer = as_json(annotations, facts)
        if output == "asap":
            return str(write_asap(annotations)), answer
        if output == "dsa":
            return str(write_dsa(annotations, facts)), answer
        return None, answer


def answer_slide(
    tasks: Mapping[str, SlideTask], request: Mapping[str, Any], datastore: Datastore
) -> dict[str, Any]:
    """What MONAI Label's ``infer_wsi`` is asked for, from one of these tasks.

    MONAI Label's own splits a slide into tiles that meet at seams, on devices chosen by chance.

    Args:
        tasks: by the names of the app's models.
        request: ``model``, ``image`` (an id of the datastore or a path), ``output``, and what the task reads.
        datastore: of the app; one of the Digital Slide Archive is asked for the region alone.

    Returns:
        ``file``, a path or None, and ``params``.

    Raises:
        BioSam2Error: With a reason.
    """
    task = tasks.get(request["model"])
    if task is None:
        known = ", ".join(tasks)
        raise PromptError(f"{request['model']!r} does not answer on slides; choose one of {known}")
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
        # What an archive refuses over HTTP is one too.
        why = str(error).split("\n")[0]
        raise ImageNotFoundError(f"the image {name!r} cannot be had from the datastore: {why}") from error
