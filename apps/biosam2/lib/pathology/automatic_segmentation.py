"""Every object in a rectangle, without a prompt: a grid of clicks on tiles that overlap."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from shapely.geometry import Point, box

from lib.engine.predictor import Outputs, Predictor
from lib.pathology.interactive import NEAR_BORDER, Outline, Viewer
from lib.pathology.outlines import outline
from lib.pathology.patch import Patch, read_patch
from lib.pathology.tiles import SAME, Found, Region, is_blank, merge, tile_windows
from lib.prompts.types import FramePrompts
from lib.scoring.signals.object_signals import instability, predicted_iou
from lib.scoring.signals.prompt_sources import best_apart, grid_points

# Pixels of a tile between two clicks: a nucleus of 20 px gets one at least.
GRID_STEP = 16
# Predicted IoU times stability (Kirillov et al. 2023) from which on a mask counts as an object. With 0.3, 0.4
# and 0.6, 60, 56 and 29 % of 52 fluorescent nuclei were found, and nine tenths of what was found were nuclei
# (biosam2_mini).
LEAST_QUALITY = 0.4
# Of a tile: what is larger is the ground between the objects.
MOST_AREA = 0.2


def everything(viewer: Viewer, regions: Sequence[Region]) -> list[Outline]:
    """Whatever looks like an object, the surest first; those whose middle is in one of the regions.

    Args:
        viewer: of the slide.
        regions: rectangles in pixels of level 0.

    Raises:
        ImageTooLargeError: the regions take too many tiles.
    """
    found: list[Found] = []
    for window in tile_windows(viewer.slide, regions, viewer.side, viewer.scale):
        patch = read_patch(viewer.slide, window)
        if not is_blank(patch):
            found.extend(_on_tile(patch, viewer.predictor))
    merged = merge(found)
    ending: list[Found] = []
    whole: list[Found] = []
    for item in merged:
        (ending if _ends_with_its_tiles(item, viewer) else whole).append(item)
    middles = [
        (item, item.area.representative_point()) for item in merge(whole + _seen_whole(ending, viewer))
    ]
    return [Outline(item.area, item.quality) for item, middle in middles if _is_in(middle, regions)]


def _ends_with_its_tiles(item: Found, viewer: Viewer) -> bool:
    """Whether an object is cut off by a border of its tiles that is not the slide's."""
    if not item.is_cut:
        return False
    near = NEAR_BORDER * viewer.scale
    inside = box(0, 0, viewer.slide.width, viewer.slide.height).buffer(-near / 2)
    return bool(item.tile.boundary.intersection(inside).distance(item.area) <= near)


def _seen_whole(parts: Sequence[Found], viewer: Viewer) -> list[Found]:
    """Objects that tiles have cut off and no other tile has continued, from a click in their middle."""
    if not parts:
        return []
    clicks = np.array([part.area.representative_point().coords[0] for part in parts]) - 0.5
    answers = viewer.each(clicks, np.zeros((0, 2)))
    return [
        Found(answer.area, part.quality, part.tile, False)
        for part, answer in zip(parts, answers, strict=True)
        if answer.area.intersection(part.area).area > SAME * part.area.area
    ]


def _on_tile(patch: Patch, predictor: Predictor) -> list[Found]:
    per_side = max(1, round(max(patch.width, patch.height) / GRID_STEP))
    one = np.ones(1, dtype=np.int32)
    clicks = grid_points(patch.width, patch.height, per_side)
    outputs = predictor.outputs(patch, 0, [FramePrompts(click[None], one) for click in clicks])
    qualities = _qualities(outputs)
    found = []
    for number in best_apart(outputs.logits > 0, qualities, len(clicks)):
        pieces = outline(outputs.logits[number], patch.width, patch.height).geoms
        if pieces:
            piece = patch.to_slide(max(pieces, key=lambda piece: piece.area))
            found.append(Found(piece, qualities[number], patch.area, patch.cuts(piece, NEAR_BORDER)))
    return found


def _qualities(outputs: Outputs) -> list[float]:
    """Of each mask; 0 where there is no object, or one that is not sure or far too large."""
    qualities = []
    for logits, ious, object_logit in zip(outputs.logits, outputs.ious, outputs.object_logits, strict=True):
        share = float((logits > 0).mean())
        quality = predicted_iou(ious) * (1.0 - (instability(logits) or 0.0))
        is_object = object_logit > 0 and 0 < share <= MOST_AREA and quality >= LEAST_QUALITY
        qualities.append(quality if is_object else 0.0)
    return qualities


def _is_in(middle: Point, regions: Sequence[Region]) -> bool:
    return any(x <= middle.x < x + width and y <= middle.y < y + height for x, y, width, height in regions)
