"""Requests that no server should answer with a mask, each with the words that its refusal must hold."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.support import studies

CT = studies.phantom("ct")
LESION = CT.click("lesion")
K = LESION[2]

SLICE_TASKS = ("biosam2_point", "biosam2_box", "sam_2d")
VOLUME_TASKS = ("biosam2_propagate", "biosam2_multi", "sam_3d")
TASKS = SLICE_TASKS + VOLUME_TASKS

MEGABYTE = 1 << 20


def click(task: str, *points: Any) -> dict[str, Any]:
    """Positive points, in the form that the task's viewers send."""
    return {"lesion" if task == "biosam2_multi" else "foreground": list(points)}


@dataclass(frozen=True)
class Fault:
    """A bad request to a task.

    Attributes:
        name: for the message of a failure.
        says: regular expression that the refusal must hold, in any case.
        params: task name to the JSON of the request.
        image: image id; None for none.
        tasks: those that must refuse it.
        status: the status, where one is agreed; else any from 400 to 499.
        raw: the text of the params field, in place of ``params``.
        query: further query arguments.
    """

    name: str
    says: str
    params: Callable[[str], Any] = field(default=lambda task: click(task, LESION))
    image: str | None = "ct"
    tasks: tuple[str, ...] = TASKS
    status: int | None = None
    raw: Callable[[], str] | None = None
    query: dict[str, str] = field(default_factory=dict)


def _with(**others: Any) -> Callable[[str], Any]:
    return lambda task: {**click(task, LESION), **others}


def _points(*points: Any) -> Callable[[str], Any]:
    return lambda task: click(task, *points)


def _only(**params: Any) -> Callable[[str], Any]:
    return lambda task: dict(params)


IMAGES = [
    Fault("unknown image", "no_such_case", image="no_such_case", status=404),
    Fault("nan", "NaN|finite", image="nan", status=422),
    Fault("garbage", "garbage.*(read|corrupt|NIfTI|format)", image="garbage", status=422),
    Fault(
        "truncated", "truncated.*(end|short|read|corrupt|incomplete|truncated)", image="truncated", status=422
    ),
    Fault("empty file", "empty", image="empty", status=422),
    Fault("four dimensions", "4-D|four|dimension", image="four_d", status=422),
    Fault("above the voxel limit", f"343,?000.*{studies.MAX_VOXELS // 1000}", image="large", status=413),
    Fault("garbage picture", "garbage_picture", image="garbage_picture", tasks=SLICE_TASKS, status=422),
]

POINTS = [
    Fault("i outside", r"\b96\b.*\b9[56]\b", _points([96, 25, K]), status=400),
    Fault("j outside", r"\b80\b.*\b(79|80)\b", _points([72, 80, K]), status=400),
    Fault("k outside", r"\b24\b.*\b2[34]\b", _points([72, 25, 24]), status=400),
    Fault("negative index", "-3", _points([-3, 25, K]), status=400),
    Fault("one point of two outside", r"\b500\b", _points(LESION, [500, 25, K]), status=400),
    Fault("no prompt", "prompt|point|box", _only(), status=400),
    Fault("empty lists", "prompt|point|box", lambda task: {**click(task), "background": []}, status=400),
    Fault("only nulls", "prompt|point|box", _points(None), status=400),
    Fault("only negative", "positive|foreground", _only(background=[LESION]), status=400),
    Fault("words for numbers", "left", _points(["left", "top", "first"]), status=400),
    Fault("digits in quotes", "72|number", _points(["72", "25", str(K)]), status=400),
    Fault("null coordinate", "None|null|number", _points([72, None, K]), status=400),
    Fault("true for a number", "True|true|number", _points([True, 25, K]), status=400),
    Fault("a lone number", "72|point|list", _points(72), status=400),
    Fault("one coordinate", r"\[72\].*\[i, j, k\]", _points([72]), status=400),
    Fault("four coordinates", r"\[72, 25, 9, 1\].*\[i, j, k\]", _points([72, 25, K, 1]), status=400),
    Fault("no slice in the point", "slice|3|three", _points([72, 25]), status=400),
    Fault("points are text", "abc", lambda task: {next(iter(click(task))): "abc"}, status=400),
    Fault(
        "points are an object",
        "object|list|dict",
        lambda task: {next(iter(click(task))): {"i": 72, "j": 25, "k": K}},
        status=400,
    ),
    Fault(
        "labels do not match points", "label", _only(points=[LESION, LESION], point_labels=[1]), status=400
    ),
]

ROI = [
    Fault("roi of 3", r"roi.*\b3\b|\b3\b.*roi", _with(roi=[1, 2, 3]), status=400),
    Fault("roi of 5", r"roi.*\b5\b|\b5\b.*roi", _with(roi=[1, 2, 3, 4, 5]), status=400),
    Fault("roi outside", "200", _only(roi=[200, 240, 10, 20, K, K + 2]), status=400),
    Fault("roi on slices that are not", r"\b60\b", _only(roi=[60, 86, 15, 36, 60, 70]), status=400),
    Fault("roi of words", "roi", _with(roi=["a", "b", "c", "d"]), status=400),
    Fault("roi is text", "roi", _with(roi="everything"), status=400),
    Fault("roi with null", "roi", _with(roi=[1, None, 3, 4]), status=400),
]

OPTIONS = [
    Fault("unknown device", "tpu", _with(device="tpu"), status=400),
    Fault("device that is not there", "cuda:99", _with(device="cuda:99"), status=400),
    Fault("false in words", "largest_component.*true or false", _with(largest_component="false"), status=400),
    Fault("half a character", "half a character.*rename", _with(label="\ud800"), status=400),
    Fault("label with a null", "label.*rename", _with(label="a\0b"), status=400),
    Fault("device is a number", "device", _with(device=7), status=400),
    Fault("window of one", "window", _with(window=[40]), status=400),
    Fault("window of words", "window", _with(window=["soft", "tissue"]), status=400),
    Fault("window upside down", "window", _with(window=[240, -160]), status=400),
    Fault("window of no width", "window", _with(window=[40, 40]), status=400),
    Fault("axis 3", "axis.*3|3.*axis", _with(axis=3), status=400),
    Fault("axis in words", "axis", _with(axis="sagittal"), status=400),
    Fault("slice in words", "slice", _with(slice="first"), tasks=SLICE_TASKS, status=400),
    Fault(
        "slice range upside down", "slice_range", _with(slice_range=[9, 3]), tasks=VOLUME_TASKS, status=400
    ),
    Fault("slice range of one", "slice_range", _with(slice_range=[9]), tasks=VOLUME_TASKS, status=400),
    Fault("label is a list", "label", _with(label=["lesion"]), tasks=SLICE_TASKS),
    Fault("label is a number", "label", _with(label=5), tasks=SLICE_TASKS),
    Fault("unknown file type", r"\.exe", _with(result_extension=".exe")),
    Fault("file type with a path", "result_extension", _with(result_extension="/../../evil.nrrd")),
    Fault("file type is a number", "result_extension", _with(result_extension=7)),
    Fault("other model in params", "no_such_model", _with(model="no_such_model")),
]

BODIES = [
    Fault("not JSON", "JSON", raw=lambda: "{foreground: [[72, 25, 9]]}", status=400),
    Fault("cut off", "JSON", raw=lambda: '{"foreground": [[72, 25,', status=400),
    Fault("a list", "object", raw=lambda: "[1, 2, 3]", status=400),
    Fault("a number", "object", raw=lambda: "42", status=400),
    Fault("a word", "object", raw=lambda: '"foreground"', status=400),
    Fault(
        "not a number in a point",
        "NaN|finite|number",
        raw=lambda: '{"foreground": [[NaN, 25, 9]], "lesion": [[NaN, 25, 9]]}',
    ),
    Fault(
        "infinity in a point",
        "inf|finite|number",
        raw=lambda: '{"foreground": [[1e999, 25, 9]], "lesion": [[1e999, 25, 9]]}',
    ),
    Fault(
        "nested without end",
        "JSON|nest|deep",
        raw=lambda: '{"foreground": ' + "[" * 200_000 + "]" * 200_000 + "}",
    ),
    Fault(
        "a number without end",
        ".",
        raw=lambda: '{"foreground": [[' + "9" * 5000 + ", 25, 9]]}",
        tasks=SLICE_TASKS,
    ),
]

# Refused before any task is asked, so one task says it all; it takes a second to send.
LARGE = Fault(
    "50 MB of params",
    "large|size|exceed|limit",
    raw=lambda: json.dumps({"foreground": [LESION], "note": "x" * (50 * MEGABYTE)}),
    tasks=("biosam2_point",),
)

# Several labels on a picture are as good as on a volume, so biosam2_multi takes one.
ONE_VOLUME_TASKS = ("biosam2_propagate", "sam_3d")
_GREY = studies.phantom("grey")
_CELL = _GREY.click("cell")[:2]

PICTURES = [
    Fault(
        "picture to a volume task", "2-D|volume|slices", _points(_CELL), image="grey", tasks=ONE_VOLUME_TASKS
    ),
    Fault(
        "picture to a volume task, with a slice",
        "2-D|volume|slices",
        _points([*_CELL, 0]),
        image="grey",
        tasks=ONE_VOLUME_TASKS,
    ),
    Fault(
        "slice 3 of a picture", r"\b3\b", _points([*_CELL, 3]), image="grey", tasks=SLICE_TASKS, status=400
    ),
    Fault("x outside a picture", r"\b104\b", _points([104, 20]), image="grey", tasks=SLICE_TASKS, status=400),
    Fault("y outside a picture", r"\b72\b", _points([20, 72]), image="grey", tasks=SLICE_TASKS, status=400),
    Fault("x and y swapped", r"\b77\b", _points([22, 77]), image="grey", tasks=SLICE_TASKS, status=400),
    Fault(
        "roi outside a picture", r"\b200\b", _only(roi=[200, 200, 220, 230]), image="grey", tasks=SLICE_TASKS
    ),
    Fault(
        "roi of a volume's slices",
        "60|slice",
        _only(roi=[1, 9, 1, 9, 60, 70]),
        image="grey",
        tasks=SLICE_TASKS,
    ),
]

ALL = IMAGES + POINTS + ROI + OPTIONS + BODIES + PICTURES

# What a client can send beside its prompts, and a value of every kind that JSON has.
OPTION_NAMES = (
    *(
        "foreground",
        "background",
        "points",
        "point_labels",
        "label_prompt",
        "lesion",
        "roi",
        "boxes",
        "location",
    ),
    *("label", "slice", "slice_range", "axis", "window", "device", "largest_component", "fill_holes"),
    *("result_extension", "result_dtype", "result_compress", "restore_label_idx", "reset_state"),
    *("label_tag", "model", "client_id", "output", "something_else"),
)
VALUES = (
    None,
    True,
    False,
    0,
    1,
    -1,
    2.5,
    1e300,
    10**30,
    "",
    "x",
    "1",
    [],
    {},
    [None],
    [[]],
    [{}],
    ["x"],
    {"a": 1},
    [1],
)
