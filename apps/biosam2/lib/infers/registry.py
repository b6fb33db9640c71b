"""The tasks that the server shows, by name."""

from __future__ import annotations

from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType

from lib.engine.frame_tracker import FrameTracker
from lib.infers.automatic import NAME, AutoTask
from lib.infers.interactive import SliceTask, VideoTask, VolumeTask
from lib.infers.task import Services
from lib.infers.templates import Templates


def all_tasks(services: Services, templates: Templates) -> dict[str, InferTask]:
    """Every task by the name that clients call it.

    Args:
        services: Parts that the tasks share.
        templates: Labels of the datastore.

    The deepgrow tasks offer no labels of their own: a 3D Slicer that finds labels on an interactive model and
    no automatic model beside it runs a model without a name at each "Next Sample".
    """
    tracker = FrameTracker()

    def point(description: str) -> SliceTask:
        return SliceTask(services, tracker, description)

    def volume(description: str) -> VolumeTask:
        return VolumeTask(services, InferType.DEEPGROW, 3, "volume", [], description)

    numbered = {name: value for value, name in enumerate(services.labels, start=1)}
    multi = "Several labels through a volume, from points per label"
    video = "A video in one file, from prompts on any of its frames; objects may leave and come back"
    scribbles = "A whole volume, from scribbles of both kinds on any of its slices"
    return {
        "biosam2_point": point("One slice, from points (and a box where one is sent)"),
        "biosam2_box": point("One slice, from a box; points refine it"),
        "biosam2_propagate": volume("A whole volume, from prompts on any of its slices"),
        "biosam2_multi": VolumeTask(services, InferType.DEEPEDIT, 3, "multi", numbered, multi),
        "biosam2_scribbles": VolumeTask(services, InferType.SCRIBBLES, 3, "scribbles", [], scribbles),
        "biosam2_video": VideoTask(services, InferType.DEEPGROW, 3, "video", [], video),
        NAME: AutoTask(services, templates),
        "sam_2d": point("biosam2_point under the name of MONAI Label's own task"),
        "sam_3d": volume("biosam2_propagate under the name of MONAI Label's own task"),
    }
