"""``biosam2_auto`` on slides: the labels of the datastore's pictures, found in a region tile by tile."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator

import numpy as np
import shapely
from shapely.geometry import MultiPolygon
from shapely.geometry.base import BaseGeometry

from lib.engine.memory import confidence
from lib.engine.one_prompt import OnePrompt
from lib.engine.predictor import Predictor
from lib.errors import ImageTooLargeError, PromptError
from lib.infers.task import Services
from lib.infers.templates import NO_LABEL, Templates
from lib.pathology.automatic_segmentation import Region
from lib.pathology.interactive import Outline
from lib.pathology.outlines import as_areas, outline
from lib.pathology.patch import TileRectangle, read_patch
from lib.pathology.request import SlideRequest
from lib.pathology.slide import Slide
from lib.pathology.task import SlideTask

logger = logging.getLogger(__name__)

# Tiles of one request, each segmented once for each label: about five minutes on two cores.
MOST_TILES = 2000


class LabelledSlideTask(SlideTask):
    """Segments a region of a slide without a prompt, at the size of the labelled pictures.

    Args:
        services: Parts that the app's tasks share.
        templates: Labels of the datastore.
    """

    def __init__(self, services: Services, templates: Templates):
        super().__init__(services)
        self._templates = templates

    def classes(self) -> list[str]:
        """Classes of the answers."""
        return self._templates.names()

    def find(self, asked: SlideRequest, slide: Slide, predictor: Predictor) -> list[tuple[str, Outline]]:
        """Class and outline of every object; where classes overlap, the more confident one has the place.

        Raises:
            PromptError: The datastore has no label.
            ImageTooLargeError: The regions have more than ``MOST_TILES`` tiles.
        """
        found: list[tuple[float, str, MultiPolygon]] = []
        for name in self.classes():
            segmenter, _ = self._templates.one_prompt(predictor, name, without="")
            if segmenter is not None:
                score, area = _label_in_regions(segmenter, slide, asked.regions)
                found.append((score, name, area))
                logger.info("Regions of a slide: %s, %d outlines", name, len(area.geoms))
        if not found:
            raise PromptError(NO_LABEL)
        taken: BaseGeometry = MultiPolygon()
        outlines = []
        for score, name, area in sorted(found, key=lambda item: -item[0]):
            free = as_areas(shapely.make_valid(area.difference(taken)))
            outlines += [(name, Outline(part, score)) for part in free.geoms]
            taken = taken.union(area)
        return outlines


def _label_in_regions(
    segmenter: OnePrompt, slide: Slide, regions: tuple[Region, ...]
) -> tuple[float, MultiPolygon]:
    """Mean confidence of a label over the tiles that hold it, and its area inside the regions."""
    tiles = list(dict.fromkeys(tile for region in regions for tile in _tiles(region, slide, segmenter.size)))
    if len(tiles) > MOST_TILES:
        raise ImageTooLargeError(
            f"The regions have {len(tiles)} tiles of {segmenter.size[0]} x {segmenter.size[1]} pixels, the "
            f"size of the labelled pictures; the limit is {MOST_TILES}. Draw a smaller rectangle"
        )
    scores, areas = [], []
    for tile in tiles:
        patch = read_patch(slide, tile)
        result = segmenter.frame(patch, 0)
        if result.mask.any():
            scores.append(confidence(result.score, result.presence))
            edges = np.where(result.mask, 1.0, -1.0).astype(np.float32)
            areas.append(patch.to_slide(outline(edges, patch.width, patch.height)))
    wanted = shapely.union_all([shapely.box(x, y, x + w, y + h) for x, y, w, h in regions])
    inside = shapely.union_all(areas).intersection(wanted)
    return float(np.mean(scores)) if scores else 0.0, as_areas(shapely.make_valid(inside))


def _tiles(region: Region, slide: Slide, size: tuple[int, int]) -> Iterator[TileRectangle]:
    """Tiles of a size that cover a region, moved so that they lie on the slide."""
    starts = []
    for first, extent, side, whole in zip(
        region[:2], region[2:], size, (slide.width, slide.height), strict=True
    ):
        starts.append([max(0, min(start, whole - side)) for start in range(first, first + extent, side)])
    width, height = min(size[0], slide.width), min(size[1], slide.height)
    for x, y in itertools.product(*starts):
        yield TileRectangle(x, y, width, height, 1.0)
