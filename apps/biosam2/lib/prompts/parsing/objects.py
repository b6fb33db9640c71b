"""Which prompts belong to which object: the dialects' keys, read into one draft for each object."""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lib.errors import PromptError
from lib.prompts.parsing.grid import Grid
from lib.prompts.parsing.regions import Regions
from lib.prompts.parsing.shapes import BoxRequest, PointReader, read_box, read_boxes, read_roi
from lib.prompts.parsing.values import sequence, shown, whole
from lib.prompts.types import MAX_OBJECTS, KnownPixels, MaskPrompt, Point
from lib.settings import MAX_NAME, PROMPT_KEYS, RESULT_PREFIX

DEFAULT_LABEL = "object"
LABEL_POINTS = "label_points"  # points of the labels that are called like other fields of a request

_NO_TEXT = ("Cc", "Cs")  # Unicode's control characters and surrogates, which XML and UTF-8 have not

# Keys of a request that are never the name of a label, whatever their value: those of MONAI Label's server
# and of its clients, and our own.
RESERVED_KEYS = frozenset(
    {
        "annotations",
        "axis",
        "background",
        "box",
        "boxes",
        "cache_image",
        "client_id",
        "config",
        "description",
        "device",
        "file",
        "foreground",
        "girder_api_url",
        "girder_token",
        "gpus",
        "id",
        "image",
        "image_size",
        "images",
        "label",
        "label_info",
        "label_names",
        LABEL_POINTS,
        "label_prompt",
        "label_tag",
        "labels",
        "largest_cc",
        "lassos",
        "level",
        "location",
        "logging",
        "max_workers",
        "memory",
        "min_poly_area",
        "model",
        "multi_gpu",
        "name",
        "output",
        "params",
        "path",
        "point_labels",
        "points",
        "pylab",
        "reset_state",
        "restore_label_idx",
        "roi",
        "save_label",
        "scribbles",
        "selected_label_name",
        "session",
        "session_id",
        "size",
        "slice",
        "slice_range",
        "spacing",
        "strategy",
        "tile_size",
        "user_id",
        "zoom",
        "window",
        "wsi_tiles",
    }
)


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
    request: Mapping[str, Any],
    grid: Grid,
    drafts: dict[str, Draft],
    asked: str | None,
    labels: Sequence[str],
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
