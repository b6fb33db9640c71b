"""The whole request: MONAI Label's dialects in, one ``PromptSet`` out."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from numpy.typing import NDArray

from lib.errors import PromptError
from lib.prompts.parsing.boxes import BoxRequest
from lib.prompts.parsing.grid import Grid, read_grid
from lib.prompts.parsing.objects import DEFAULT_LABEL, Draft, read_many_objects, read_one_object
from lib.prompts.parsing.points import PointReader
from lib.prompts.parsing.slices import Range, SliceOption, read_slice, read_slice_range
from lib.prompts.types import Box, ObjectPrompts, Point, PromptSet

Mode = Literal["slice", "volume", "multi"]


def parse_prompts(
    request: Mapping[str, Any],
    *,
    shape: tuple[int, int, int],
    affine: NDArray | None,
    is_2d: bool,
    mode: Mode,
    labels: Sequence[str] = (),
) -> PromptSet:
    """Understands what any client sends.

    Points are ``foreground`` and ``background``, a list for each label, or ``points`` with ``point_labels``;
    each is [i, j, k], or [x, y] where the slice is known. Boxes are ``roi``, ``box``, ``boxes``. ``slice``,
    ``axis``, ``slice_range``, ``location`` and ``label`` say where and what. Null and [] say nothing.

    Args:
        request: The request as MONAI Label hands it to a task; keys that are no prompts are left alone.
        shape: Voxels (I, J, K) of the image.
        affine: ``(4, 4)`` voxel index to RAS millimetres; needed for a slice in millimetres alone.
        is_2d: True for an image that is no volume.
        mode: ``slice``: one object on one slice: ``slice`` where a positive point is on it, else that of the
            last point, else of the last box, else ``slice``; prompts on other slices are left out.
            ``volume``: one object, prompts on any slices, the slices of a ROI being a bound on the answer.
            ``multi``: one object for each label.
        labels: The configured labels; their order gives the objects' values in ``multi``.

    Raises:
        PromptError: The request cannot be understood, or there is nothing to segment in it.
    """
    grid = read_grid(request, shape, affine, is_2d)
    if mode == "volume" and grid.count == 1:
        kind = "2-D" if is_2d else "one slice thick"
        raise PromptError(f"The image is {kind} and this model needs a volume; use a model of dimension 2.")
    option = read_slice(request, grid)
    bound = read_slice_range(request, grid)
    reader = PointReader(grid, option)
    if mode == "slice":
        return _on_one_slice(read_one_object(request, reader, grid, labels), option, grid)
    if mode == "volume":
        return _in_one_volume(read_one_object(request, reader, grid, labels), option, grid, bound)
    drafts = read_many_objects(request, reader, grid, labels)
    values = _label_values([draft.label for draft in drafts], labels)
    objects = [_in_volume(draft, values[draft.label], option, grid, bound) for draft in drafts]
    return PromptSet(tuple(sorted(objects, key=lambda item: item.index)), grid.axis, None, bound)


def _on_one_slice(draft: Draft, option: SliceOption, grid: Grid) -> PromptSet:
    if not draft.positives and not draft.boxes:
        _raise_nothing_positive(draft)
    index = _choose_slice(draft, option, grid)
    points = [point for point in draft.points if point.slice_index(grid.axis) == index]
    boxes = [
        box.on(grid, (index, index + 1))
        for box in draft.boxes
        if box.slices is None or box.slices[0] <= index < box.slices[1]
    ]
    return PromptSet((ObjectPrompts(draft.label, tuple(points), tuple(boxes)),), grid.axis, slice_hint=index)


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
    return option.index(draft.boxes[-1].name)


def _in_one_volume(draft: Draft, option: SliceOption, grid: Grid, bound: Range | None) -> PromptSet:
    for box in draft.boxes:
        if box.is_bound:
            bound = _intersection(bound, box)
    return PromptSet((_in_volume(draft, 1, option, grid, bound),), grid.axis, None, bound)


def _in_volume(
    draft: Draft, value: int, option: SliceOption, grid: Grid, bound: Range | None
) -> ObjectPrompts:
    """One object's prompts on any slices of the bound; negative points outside it change nothing there."""
    if not draft.positives and not draft.boxes:
        _raise_nothing_positive(draft)
    points = [point for point in draft.points if _is_inside(point, grid, bound)]
    boxes = [_place(box, draft, option, grid, bound) for box in draft.boxes]
    return ObjectPrompts(draft.label, tuple(points), tuple(boxes), index=value)


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
