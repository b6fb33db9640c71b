"""The whole request: MONAI Label's dialects in, one ``PromptSet`` out."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from numpy.typing import NDArray

from lib.errors import PromptError
from lib.prompts.parsing.grid import Grid, Range, SliceOption, read_grid, read_slice, read_slice_range
from lib.prompts.parsing.objects import (
    DEFAULT_LABEL,
    Draft,
    asked_label,
    read_many_objects,
    read_one_object,
)
from lib.prompts.parsing.regions import Regions, read_regions, require_shape, scribbled, starting_mask
from lib.prompts.parsing.shapes import BoxRequest, PointReader
from lib.prompts.parsing.values import shown
from lib.prompts.types import Box, ObjectPrompts, Point, PromptSet

Mode = Literal["slice", "volume", "scribbles", "multi"]

# Segments of 3D Slicer's scribbles tool in an uploaded label map.
FOREGROUND_SCRIBBLES, BACKGROUND_SCRIBBLES = "foreground_scribbles", "background_scribbles"


def parse_prompts(
    request: Mapping[str, Any],
    *,
    shape: tuple[int, int, int],
    affine: NDArray | None,
    is_2d: bool,
    mode: Mode,
    labels: Sequence[str] = (),
    label_map: tuple[NDArray, Mapping[int, str]] | None = None,
) -> PromptSet:
    """Understands what any client sends.

    Points are ``foreground`` and ``background``, a list for each label, or ``points`` with ``point_labels``;
    each is [i, j, k], or [x, y] where the slice is known. Boxes are ``roi``, ``box``, ``boxes``; strokes
    and outlines are ``scribbles`` and ``lassos``. ``slice``, ``axis``, ``slice_range``, ``location`` and
    ``label`` say where and what. Null and [] say nothing. docs/prompts.md has a table of all of them.

    Args:
        request: The request as MONAI Label hands it to a task; keys that are no prompts are left alone.
        shape: Voxels (I, J, K) of the image.
        affine: ``(4, 4)`` voxel index to RAS millimetres; needed for a slice in millimetres alone.
        is_2d: True for an image that is no volume.
        mode: ``slice``: one object on one slice: ``slice`` where a positive point is on it, else that of the
            last point, else of the last box, else ``slice``; prompts on other slices are left out.
            ``volume``: one object, prompts on any slices, the slices of a ROI being a bound on the answer.
            ``scribbles``: as ``volume``; a ROI is a bound on the slices and no box.
            ``multi``: one object for each label.
        labels: The configured labels; their order gives the objects' values in ``multi``.
        label_map: Uploaded label map (I, J, K) and the name of each value: scribbles, starting masks.

    Raises:
        PromptError: The request cannot be understood, or there is nothing to segment in it.
    """
    grid = read_grid(request, shape, affine, is_2d)
    if mode in ("volume", "scribbles") and grid.count == 1:
        kind = "2-D" if is_2d else "one slice thick"
        raise PromptError(f"The image is {kind} and this model needs a volume; use a model of dimension 2.")
    option = read_slice(request, grid)
    bound = read_slice_range(request, grid)
    reader = PointReader(grid, option)
    regions = read_regions(request, grid, option)
    if label_map is not None:
        for name, found in _uploaded(*label_map, request, grid, labels, several=mode == "multi").items():
            regions.setdefault(name, Regions()).extend(found)
    if mode != "multi":
        draft = read_one_object(request, reader, grid, labels, regions)
        if mode == "slice":
            return _on_one_slice(draft, option, grid)
        return _in_one_volume(draft, option, grid, bound, with_roi=mode == "volume")
    drafts = read_many_objects(request, reader, grid, labels, regions)
    values = _label_values([draft.label for draft in drafts], labels)
    objects = [_in_volume(draft, values[draft.label], option, grid, bound) for draft in drafts]
    return PromptSet(tuple(sorted(objects, key=lambda item: item.index)), grid.axis, None, bound)


def _on_one_slice(draft: Draft, option: SliceOption, grid: Grid) -> PromptSet:
    if not draft.is_shown:
        _raise_nothing_positive(draft)
    index = _choose_slice(draft, option, grid)
    points = [point for point in draft.points if point.slice_index(grid.axis) == index]
    boxes = [
        box.on(grid, (index, index + 1))
        for box in draft.boxes
        if box.slices is None or box.slices[0] <= index < box.slices[1]
    ]
    masks = [mask for mask in draft.masks if mask.slice_index == index]
    known = [pixels for pixels in draft.known if pixels.slice_index == index]
    item = ObjectPrompts(draft.label, tuple(points), tuple(boxes), tuple(masks), known=tuple(known))
    return PromptSet((item,), grid.axis, slice_hint=index)


def _choose_slice(draft: Draft, option: SliceOption, grid: Grid) -> int:
    """The request's where a positive point is on it, else the last such point's, else the last box's.

    3D Slicer sends the points of the slice on display, and of all slices where that is the first.
    """
    if draft.positives:
        clicked = [point.slice_index(grid.axis) for point in draft.positives]
        return int(option.value) if option.value in clicked else clicked[-1]
    for box in reversed(draft.boxes):
        if box.slices is not None:
            return option.within(box.slices) if box.is_bound else box.slices[0]
    if draft.boxes:
        return option.index(draft.boxes[-1].name)
    masked = [mask.slice_index for mask in draft.masks]
    return int(option.value) if option.value in masked else masked[len(masked) // 2]


def _in_one_volume(
    draft: Draft, option: SliceOption, grid: Grid, bound: Range | None, with_roi: bool
) -> PromptSet:
    for box in draft.boxes:
        if box.is_bound:
            bound = _intersection(bound, box)
    if not with_roi:
        draft.boxes = [box for box in draft.boxes if not box.is_bound]
    return PromptSet((_in_volume(draft, 1, option, grid, bound),), grid.axis, None, bound)


def _in_volume(
    draft: Draft, value: int, option: SliceOption, grid: Grid, bound: Range | None
) -> ObjectPrompts:
    """One object's prompts on any slices of the bound; negative points outside it change nothing there."""
    if not draft.is_shown:
        _raise_nothing_positive(draft)
    low, high = bound if bound is not None else (0, grid.count)
    points = [point for point in draft.points if _is_inside(point, grid, bound)]
    boxes = [_place(box, draft, option, grid, bound) for box in draft.boxes]
    masks = [mask for mask in draft.masks if low <= mask.slice_index < high]
    known = [pixels for pixels in draft.known if low <= pixels.slice_index < high]
    return ObjectPrompts(draft.label, tuple(points), tuple(boxes), tuple(masks), value, tuple(known))


def _is_inside(point: Point, grid: Grid, bound: Range | None) -> bool:
    index = point.slice_index(grid.axis)
    if bound is None or bound[0] <= index < bound[1]:
        return True
    if point.positive:
        raise PromptError(
            f"The positive point {point.ijk} is on slice {index}, outside the slices {bound[0]} to "
            f"{bound[1] - 1} of the roi or slice_range; enlarge the range or remove the point."
        )
    return False


def _place(box: BoxRequest, draft: Draft, option: SliceOption, grid: Grid, bound: Range | None) -> Box:
    """The box on its own slices; one that has none is on the last positive point's, else the request's."""
    slices = box.slices
    if slices is None:
        positives = draft.positives
        index = positives[-1].slice_index(grid.axis) if positives else option.index(box.name)
        slices = (index, index + 1)
    if bound is not None:
        slices = (max(slices[0], bound[0]), min(slices[1], bound[1]))
        if slices[0] >= slices[1]:
            raise PromptError(
                f"{box.name} lies outside the slices {bound[0]} to {bound[1] - 1} of slice_range."
            )
    return box.on(grid, slices)


def _intersection(bound: Range | None, box: BoxRequest) -> Range | None:
    if bound is None or box.slices is None:
        return box.slices
    both = max(bound[0], box.slices[0]), min(bound[1], box.slices[1])
    if both[0] >= both[1]:
        raise PromptError(
            f"slice_range {list(bound)} and the slices {box.slices[0]} to {box.slices[1] - 1} of {box.name} "
            "have none in common."
        )
    return both


def _uploaded(
    array: NDArray,
    names: Mapping[int, str],
    request: Mapping[str, Any],
    grid: Grid,
    labels: Sequence[str],
    several: bool,
) -> dict[str | None, Regions]:
    """What an uploaded label map says, by label; None for scribbles, which belong to the label asked for.

    Args:
        array: Label map (I, J, K).
        names: Name of each value.
        request: Request, whose ``label`` or ``selected_label_name`` names the object.
        grid: Image.
        labels: Configured labels.
        several: True where each name is an object of its own.
    """
    require_shape(array.shape, grid)
    marked: dict[str, NDArray] = {}
    for value, name in names.items():
        marked[name] = marked[name] | (array == value) if name in marked else array == value
    scribbles = Regions()
    for name, positive in ((FOREGROUND_SCRIBBLES, True), (BACKGROUND_SCRIBBLES, False)):
        if name in marked:
            scribbles.extend(scribbled(marked.pop(name), positive, grid))
    if several:
        own: dict[str | None, Regions] = {name: starting_mask(mask, grid) for name, mask in marked.items()}
        return {**({None: scribbles} if scribbles.points else {}), **own}
    asked = asked_label(request, labels)
    if len(marked) > 1 and asked not in marked and not scribbles.points:
        raise PromptError(
            f"The label map holds {shown(sorted(marked))}, and this model segments one object; "
            "say which with `label`."
        )
    chosen = marked.get(asked or "", next(iter(marked.values())) if len(marked) == 1 and not asked else None)
    if chosen is not None:
        scribbles.extend(starting_mask(chosen, grid))
    return {None: scribbles}


def _label_values(names: Sequence[str], labels: Sequence[str]) -> dict[str, int]:
    """A label's place in the configured list, counted from 1; others come after it, as they appear.

    An only object that nobody named is 1: MITK names none, and shows that value alone.
    """
    if list(names) == [DEFAULT_LABEL] and DEFAULT_LABEL not in labels:
        return {DEFAULT_LABEL: 1}
    known = {label: index for index, label in reversed(list(enumerate(labels, start=1)))}
    unknown = [name for name in names if name not in known]
    return known | {name: index for index, name in enumerate(unknown, start=len(labels) + 1)}


def _raise_nothing_positive(draft: Draft) -> None:
    ObjectPrompts(draft.label, tuple(draft.points))
