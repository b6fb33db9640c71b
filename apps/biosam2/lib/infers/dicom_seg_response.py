"""An answer as a DICOM segmentation, where the datastore is a DICOM store.

MONAI Label makes it with a program that it downloads, and leaves a copy of each on the disk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from fastapi import BackgroundTasks, HTTPException
from fastapi.responses import FileResponse
from monailabel.interfaces.app import MONAILabelApp

from lib.http import http_errors


@runtime_checkable
class SegmentationStore(Protocol):
    """A datastore that knows the series of an image."""

    def as_dicom_seg(self, image_id: str, label: Path, label_info: Sequence[Mapping[str, Any]]) -> Path:
        """Writes a label of an image as a DICOM segmentation, to a temporary file of the caller's."""


def answer_with_segmentation(
    app: MONAILabelApp, model: str, image: str, params: Mapping[str, Any], tasks: BackgroundTasks
) -> FileResponse:
    """Segments an image of the datastore, and answers with a DICOM segmentation.

    Args:
        app: with datastore and models.
        model: which.
        image: its id.
        params: of the request; ``label_info`` names and colours the segments.
        tasks: done when the answer is sent: files are deleted.

    Raises:
        HTTPException: with a reason, for a datastore that is no DICOM store, and for whatever is wrong with
            the request.
    """
    store = app.datastore()
    if not isinstance(store, SegmentationStore) or not image:
        raise HTTPException(
            HTTPStatus.BAD_REQUEST,
            detail="output=dicom_seg is for a series of a DICOM store: start the server on one, and name one",
        )
    result = app.infer({**params, "model": model, "image": image, "result_extension": ".nii.gz"})
    mask = Path(result["file"])
    tasks.add_task(mask.unlink, missing_ok=True)
    names: Mapping[str, int] = result["params"]["label_names"]
    said = params.get("label_info") or [{"name": name, "idx": value} for name, value in names.items()]
    with http_errors():
        path = store.as_dicom_seg(image, mask, said)
    tasks.add_task(path.unlink, missing_ok=True)
    return FileResponse(path, media_type="application/dicom", filename=path.name)
