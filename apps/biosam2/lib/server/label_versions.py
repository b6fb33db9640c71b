"""Saving a label without overwriting somebody else's: optimistic locking of final labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from monailabel.interfaces.datastore import Datastore

from lib.errors import ConflictError, LabelError
from lib.images.medical_image import MedicalImage

# The voxel grid of a client and that of the image: positions may differ by rounding, in millimetres.
_TOLERANCE_MM = 0.05
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])


def require_version(datastore: Datastore, image_id: str, tag: str, replaces: str | None) -> None:
    """Refuses to save over a label that the client has not seen.

    Args:
        datastore: Datastore of the image.
        image_id: Id of the image.
        tag: Tag of the label.
        replaces: Version of the label that the client started from, '' for none. None saves in any case.

    Raises:
        ConflictError: The stored label is another version.
    """
    if replaces is None or tag not in datastore.get_labels_by_image_id(image_id):
        return
    info = datastore.get_label_info(image_id, tag) or {}
    if label_version(info) == replaces:
        return
    author = info.get("client_id") or info.get("user")
    by = f" by {author}" if author else ""
    raise ConflictError(
        f"The stored label of this image was saved{by} after yours was loaded. Load it to go on from it, or "
        "save yours as a newer version"
    )


def label_version(info: Mapping[str, Any]) -> str:
    """Version of a label from its info: the DICOM UID of a segmentation, else the time it was saved."""
    return str(info.get("SOPInstanceUID") or info.get("ts") or "")


def require_grid(grid: Mapping[str, Any] | None, image: MedicalImage) -> None:
    """Refuses raw voxels of another grid than the image's.

    Args:
        grid: Client's grid: ``dimensions`` (3), ``spacing`` (3) in millimetres, ``origin`` (3) and
            ``direction`` (9, one axis after the other) in LPS. None is not compared.
        image: Image that the label belongs to.

    Raises:
        LabelError: The grid cannot be read, or lies elsewhere.
    """
    if grid is None:
        return
    try:
        dimensions = tuple(int(side) for side in grid["dimensions"])
        axes = np.asarray(grid["direction"], float).reshape(3, 3).T * np.asarray(grid["spacing"], float)
        origin = np.asarray(grid["origin"], float).reshape(3)
    except (KeyError, TypeError, ValueError) as error:
        raise LabelError(
            "grid cannot be read: expected dimensions (3), spacing (3), origin (3) and direction (9 numbers)"
        ) from error
    corners = np.array([(0, 0, 0), np.subtract(image.shape, 1)])
    own = corners @ image.affine[:3, :3].T + image.affine[:3, 3]
    sent = (corners @ axes.T + origin) @ _LPS_TO_RAS
    if dimensions != tuple(image.shape) or not np.allclose(own, sent, atol=_TOLERANCE_MM):
        raise LabelError(
            f"the label's grid {dimensions} from {np.round(sent[0], 2).tolist()} is not the image's "
            f"{tuple(image.shape)} from {np.round(own[0], 2).tolist()} (RAS, mm)"
        )
