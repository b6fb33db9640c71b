"""Any client's request, turned into a ``PromptSet``: MONAI Label's dialects in, one set of prompts out."""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from numpy.typing import NDArray

from lib.errors import PromptError
from lib.prompts.fields import (
    BoxRequest,
    Grid,
    PointReader,
    Range,
    SliceOption,
    read_box,
    read_boxes,
    read_grid,
    read_roi,
    read_slice,
    read_slice_range,
    sequence,
    shown,
    whole,
)
from lib.prompts.regions import Regions, read_regions, require_shape, scribbled, starting_mask
from lib.prompts.types import MAX_OBJECTS, Box, KnownPixels, MaskPrompt, ObjectPrompts, Point, PromptSet
from lib.settings import MAX_NAME, PROMPT_KEYS, RESULT_PREFIX

Mode = Literal["slice", "volume", "scribbles", "multi", "video"]

# Segments of 3D Slicer's scribbles tool in an uploaded label map.
FOREGROUND_SCRIBBLES, BACKGROUND_SCRIBBLES = "foreground_scribbles", "background_scribbles"
DEFAULT_LABEL = "object"
LABEL_POINTS = "label_points"  # points of the labels that are called like other fields of a request

_NO_TEXT = ("Cc", "Cs")  # Unicode's control characters and surrogates, which XML and UTF-8 have not

# Keys of a request that are never the name of a label, whatever their value: those of MONAI Label's server
# and of its clients, and our own.
# fmt: off
RESERVED_KEYS = frozenset(
    {
        "annotations", "axis", "background", "box", "boxes", "cache_image", "client_id", "config",
        "description", "device", "file", "foreground", "girder_api_url", "girder_token", "gpus",
        "id", "image", "image_size", "images", "label", "label_info", "label_names", "label_points",
        "label_prompt", "label_tag", "labels", "largest_cc", "lassos", "level", "location",
        "logging", "max_workers", "memory", "min_poly_area", "model", "multi_gpu", "name", "output",
        "params", "path", "point_labels", "points", "pylab", "reset_state", "restore_label_idx",
        "roi", "save_label", "scribbles", "selected_label_name", "session", "session_id", "size",
        "slice", "slice_range", "spacing", "strategy", "tile_size", "user_id", "view", "zoom", "window",
        "wsi_tiles",
    }
)
# fmt: on


def with_label_points(params: Mapping[str, Any], labels: Sequence[str]) -> dict[str, Any]:
    """Params in which points of labels called like other fields, such as ``model``, stand apart from these.

    Args:
        params: Request of a client.
        labels: Names of the configured labels.
    """
    other = RESERVED_KEYS - PROMPT_KEYS - {"background", "foreground"}
    apart = {name: params[name] for name in labels if name in other and _is_list_of_lists(params.get(name))}
    rest = {name: value for name, value in params.items() if name not in (*apart, LABEL_POINTS)}
    return {**rest, LABEL_POINTS: apart} if apart else rest


@dataclass
class Draft:
    """One object's prompts as they were read, before slices are chosen."""

    label: str
    points: list[Point] = field(default_factory=list)
    boxes: list[BoxRequest] = field(default_factory=list)
    masks: list[MaskPrompt] = field(default_factory=list)
    known: list[KnownPixels] = field(default_factory=list)

    def add(self, regions: Regions) -> None:
        """Adds what scribbles, lassos and a label map say."""
        self.points += regions.points
        self.boxes += regions.boxes
        self.masks += regions.masks
        self.known += regions.known

    @property
    def is_shown(self) -> bool:
        """Whether a prompt says where the object is."""
        return bool(self.positives or self.boxes or self.masks)

    @property
    def positives(self) -> list[Point]:
        """The positive points, in the order in which they were clicked."""
        return [point for point in self.points if point.positive]


def read_one_object(
    request: Mapping[str, Any],
    reader: PointReader,
    grid: Grid,
    labels: Sequence[str],
    regions: Mapping[str | None, Regions],
) -> Draft:
    """The request's prompts, all of one object.

    Its points are ``foreground`` and ``background``, ``points`` and ``point_labels``, or the list of the one
    configured label that has any.

    Raises:
        PromptError: A field is not what it should be, or several labels have points.
    """
    label = asked_label(request, labels)
    points = reader.read(request.get("foreground"), "foreground") + reader.read_labelled(request)
    if not points:
        named = {name: found for name, found in _by_label(request, reader, labels, labels).items() if found}
        if len(named) > 1 and label not in named:
            raise PromptError(
                f"The labels {shown(sorted(named))} have points, and this model segments one object; "
                "send the points of one label, or use a model for several."
            )
        if named:
            label = label if label in named else next(iter(named))
            points = named[label]
    points = points + reader.read(request.get("background"), "background", positive=False)
    boxes = read_roi(request, grid) + _read_own_boxes(request, grid)
    draft = Draft(label or default_label(labels), points, boxes)
    for found in regions.values():
        draft.add(found)
    return draft


def read_many_objects(
    request: Mapping[str, Any],
    reader: PointReader,
    grid: Grid,
    labels: Sequence[str],
    regions: Mapping[str | None, Regions],
) -> list[Draft]:
    """The request's prompts by label; ``background`` points are negative points of every object.

    A label is a configured one, or any other key that is not reserved and whose value is a list of lists:
    clients know labels that the server does not. ``foreground``, ``points`` and boxes belong to ``label``.

    Raises:
        PromptError: A field is not what it should be, or a box belongs to no object.
    """
    asked = asked_label(request, labels)
    drafts = {
        name: Draft(name, points)
        for name, points in _by_label(request, reader, labels, request).items()
        if points
    }
    plain = reader.read(request.get("foreground"), "foreground") + reader.read_labelled(request)
    if plain:
        name = asked or default_label(labels)
        drafts.setdefault(name, Draft(name)).points.extend(plain)
    _add_boxes(request, grid, drafts, asked, labels)
    for label, found in regions.items():
        name = checked_name(label) if label else asked or next(iter(drafts), default_label(labels))
        drafts.setdefault(name, Draft(name)).add(found)
    background = reader.read(request.get("background"), "background", positive=False)
    for draft in drafts.values():
        draft.points.extend(background)
    return list(drafts.values()) or [Draft(asked or default_label(labels), background)]


def _add_boxes(
    request: Mapping[str, Any], grid: Grid, drafts: dict[str, Draft], asked: str | None, labels: Sequence[str]
) -> None:
    boxes = read_roi(request, grid)
    by_label = request.get("boxes")
    if isinstance(by_label, Mapping):
        for name, value in by_label.items():
            found = read_boxes(value, f"boxes[{shown(name)}]", grid)
            if found:
                drafts.setdefault(checked_name(name), Draft(name)).boxes.extend(found)
        boxes += _read_own_boxes({**request, "boxes": None}, grid)
    else:
        boxes += _read_own_boxes(request, grid)
    if not boxes:
        return
    if asked is None and len(drafts) > 1:
        raise PromptError(
            f"{boxes[0].name} could belong to any of {shown(list(drafts))}; say which with `label`."
        )
    name = asked or next(iter(drafts), default_label(labels))
    drafts.setdefault(name, Draft(name)).boxes.extend(boxes)


def _read_own_boxes(request: Mapping[str, Any], grid: Grid) -> list[BoxRequest]:
    """``box`` and ``boxes``, absent, null or [] being none."""
    box = request.get("box")
    single = [] if box is None or box == [] else [read_box(box, "box", grid)]
    return single + read_boxes(request.get("boxes"), "boxes", grid)


def _by_label(
    request: Mapping[str, Any], reader: PointReader, labels: Sequence[str], keys: Sequence[str] | Mapping
) -> dict[str, list[Point]]:
    """The points of every label among ``keys``, in their order."""
    names = [
        key
        for key in keys
        if key in request
        and not (key in RESERVED_KEYS or key.startswith(RESULT_PREFIX))
        and (key in labels or _is_list_of_lists(request[key]))
    ]
    given = {name: request[name] for name in names} | dict(request.get(LABEL_POINTS) or {})
    if len(given) > MAX_OBJECTS:
        raise PromptError(f"{len(given)} labels have points; at most {MAX_OBJECTS} are allowed at once.")
    return {checked_name(name): reader.read(points, name) for name, points in given.items()}


def _names_several(request: Mapping[str, Any], reader: PointReader, labels: Sequence[str]) -> bool:
    """Whether several labels have points or boxes."""
    named = {name for name, points in _by_label(request, reader, labels, request).items() if points}
    boxes = request.get("boxes")
    return len(named | set(boxes if isinstance(boxes, Mapping) else ())) > 1


def _is_list_of_lists(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and any(isinstance(entry, list | tuple) for entry in value)
        and all(entry is None or isinstance(entry, list | tuple) for entry in value)
    )


def checked_name(name: str) -> str:
    """The name of a label, which answers and files can hold.

    Raises:
        PromptError: It is too long, or has control characters or halves of characters.
    """
    if len(name) > MAX_NAME:
        raise PromptError(
            f"The label {shown(name)} has {len(name)} characters; at most {MAX_NAME} are allowed."
        )
    if any(unicodedata.category(character) in _NO_TEXT for character in name):
        raise PromptError(f"The label {shown(name)} has characters that are no text; rename it.")
    return name


def default_label(labels: Sequence[str]) -> str:
    """Name of an object that nobody named: ``foreground`` or the only configured label, else ``object``."""
    if "foreground" in labels:
        return "foreground"
    return labels[0] if len(labels) == 1 else DEFAULT_LABEL


def asked_label(request: Mapping[str, Any], labels: Sequence[str]) -> str | None:
    """The label that is named: by ``label``, else by the one class of ``label_prompt``, counted from 1."""
    label = request.get("label")
    label = request.get("selected_label_name") if label is None else label
    if label is not None and not isinstance(label, str):
        raise PromptError(f"label is {shown(label)}; expected the name of a label.")
    if label:
        return checked_name(label)
    classes = request.get("label_prompt")
    classes = sequence(classes if isinstance(classes, list | tuple) else [classes], "label_prompt", "a list")
    values = [whole(value, "label_prompt") for value in classes if value is not None]
    if not values:
        return None
    if len(values) > 1 or (labels and not 1 <= values[0] <= len(labels)):
        raise PromptError(
            f"label_prompt is {shown(values)}; expected one class, 1 to {max(len(labels), 1)}: "
            "this model segments what points and boxes show."
        )
    return labels[values[0] - 1] if labels else None


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
            ``video``: as ``multi`` where several labels have points or boxes, else as ``volume``.
        labels: The configured labels; their order gives the objects' values in ``multi``.
        label_map: Uploaded label map (I, J, K) and the name of each value: scribbles, starting masks.

    Raises:
        PromptError: The request cannot be understood, or there is nothing to segment in it.
    """
    grid = read_grid(request, shape, affine, is_2d)
    if mode in ("volume", "scribbles", "video") and grid.count == 1:
        kind = "2-D" if is_2d else "one slice thick"
        raise PromptError(f"The image is {kind} and this model needs a volume; use a model of dimension 2.")
    option = read_slice(request, grid)
    bound = read_slice_range(request, grid)
    reader = PointReader(grid, option)
    if mode == "video":
        mode = "multi" if _names_several(request, reader, labels) else "volume"
    regions: dict[str | None, Regions] = {}
    if any(request.get(name) is not None for name in ("scribbles", "lassos")):
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
    return PromptSet(tuple(sorted(objects, key=lambda item: item.index)), grid.axis, bound)


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
    return PromptSet((item,), grid.axis)


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
    return PromptSet((_in_volume(draft, 1, option, grid, bound),), grid.axis, bound)


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
