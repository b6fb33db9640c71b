"""MONAI Label's datastore on a DICOMweb store, such as Orthanc.

Images are the store's series; their id is the Series Instance UID. Final labels live in the store, as DICOM
segmentations: what a client saves here is sent there, and what OHIF or anybody else stored there counts as
well. Of several segmentations of one image the one that came last is its label. In the cache a label is
``labels/final/<uid>.nii.gz`` on the image's grid, made from the segmentation when somebody asks for it.
Everything in the cache can be deleted, but labels that are not final.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lib.datastores.catalog import Contents, StoredSegmentation
from lib.datastores.dicomweb_images import VOLUME, DicomWebImages
from lib.datastores.labels import (
    as_volume,
    fetch_label,
    label_facts,
    new_segmentation,
    open_label,
    send_label,
)
from lib.datastores.scanner import FINAL
from lib.errors import ImageError, LabelError
from lib.images.medical_image import MedicalImage
from lib.labels import LabelMap
from lib.labels.names import listed_label_info

logger = logging.getLogger(__name__)


class DicomWebStore(DicomWebImages):
    """Images and labels of a DICOMweb store. Safe to use from several threads and processes."""

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        # Segmentations that cannot be read, or do not fit an image of so many files: each is asked for once,
        # and again when more of its image has come.
        self._unreadable: set[tuple[str, int | None]] = set()

    def labels(self) -> dict[str, str]:
        """The segmentation of each image that has one, when the store was last asked."""
        last = self._contents.last
        return {uid: last.labels[uid][0].uid for uid in last.images if uid in last.labels}

    def json(self) -> dict[str, Any]:
        """MONAI Label's record, with the final labels that the store has, downloaded or not."""
        record = super().json()
        for uid, item in record["objects"].items():
            item["labels"].pop(FINAL, None)
            if self._segmentations(uid):
                item["labels"][FINAL] = {"ext": VOLUME, "info": self.get_label_info(uid, FINAL)}
        return record

    def get_labels_by_image_id(self, image_id: str) -> dict[str, str]:
        """Tags of an image's labels, each with the image's id."""
        own: dict[str, str] = super().get_labels_by_image_id(image_id)
        others = {tag: image_id for tag in own if tag != FINAL}
        return {**others, **({FINAL: image_id} if self._segmentations(image_id) else {})}

    def get_label_info(self, label_id: str, label_tag: str) -> dict[str, Any]:
        """What is known of a label; of one that nobody has downloaded, what its header says."""
        own: dict[str, Any] = super().get_label_info(label_id, label_tag)
        if label_tag != FINAL:
            return own
        drawn = self._segmentations(label_id)[:1]
        return (own if _is_of(own, drawn[0]) else label_facts(drawn[0])) if drawn else {}

    def get_label_uri(self, label_id: str, label_tag: str, image_id: str = "") -> str:
        """The file of a label, on its image's grid; a final one is downloaded if need be.

        Args:
            label_id: the image's id, or of a final label the Series Instance UID of the segmentation.
            label_tag: such as ``final``.
            image_id: as ``label_id`` where that is the segmentation's.

        Returns:
            A path; empty where there is no such label, or none that can be read.

        Raises:
            BusyError: the store does not answer.
        """
        if label_tag != FINAL:
            return str(super().get_label_uri(label_id, label_tag))
        image_id = image_id or self._image_of(label_id)
        size = _size(self._known(), image_id)
        for drawn in self._segmentations(image_id):
            try:
                return self._label(image_id, drawn)
            except (LabelError, ImageError) as error:
                logger.warning("The segmentation %s is no label of %s: %s", drawn.uid, image_id, error)
                self._unreadable.add((drawn.uid, size))
        return ""

    def datalist(self, full_path: bool = True) -> list[dict[str, Any]]:
        """Images with a final label, both downloaded: what a training learns from.

        Raises:
            BusyError: the store does not answer.
        """
        pairs = []
        for image_id in self.get_labeled_images():
            image = self.get_image_uri(image_id)
            label = self.get_label_uri(image_id, FINAL) if image else ""
            if label:
                pairs.append({"image": image, "label": label})
        if full_path:
            return pairs
        return [
            {key: str(Path(path).relative_to(self._folder)) for key, path in pair.items()} for pair in pairs
        ]

    def save_label(
        self,
        image_id: str,
        label_filename: str,
        label_tag: str,
        label_info: dict[str, Any],
        label_id: str = "",
    ) -> str:
        """Saves a label; a final one goes to the store, as a DICOM segmentation.

        Args:
            image_id: of an image.
            label_filename: what any client wrote, or a ``.bin`` of OHIF: raw uint8, first axis fastest.
            label_tag: such as ``final``.
            label_info: of the client, with ``label_info`` for names and colours.
            label_id: not used; MONAI Label's own signature.

        Raises:
            ImageNotFoundError: there is no such image.
            LabelError: the label does not fit its image, or the store refuses it.
            ReadOnlyError: MONAI Label's setting protects the store.
            BusyError: the store does not answer.
        """
        self.require_writable()
        image, path = self._open(image_id), Path(label_filename)
        if label_tag != FINAL and path.suffix != ".bin":
            return str(super().save_label(image_id, label_filename, label_tag, label_info))
        listed = listed_label_info(label_info)
        labels = open_label(path, image, listed)
        info = dict(label_info)
        if label_tag == FINAL:
            drawn = send_label(self._client, labels, image, self._files(image_id), listed)
            self._contents.forget()
            info.update(label_facts(drawn, labels.names, listed))
        return self._cache(image_id, labels, image, label_tag, info)

    def as_dicom_seg(self, image_id: str, label: Path, label_info: Sequence[Mapping[str, Any]]) -> Path:
        """Writes a label of an image as a DICOM segmentation, which is stored nowhere.

        Args:
            image_id: of the image.
            label: what a client or a task wrote.
            label_info: names and colours.

        Returns:
            A temporary file, the caller's to delete.

        Raises:
            LabelError: the label does not fit its image, or is empty.
        """
        image = self._open(image_id)
        return new_segmentation(
            open_label(label, image, label_info), image, self._files(image_id), label_info
        )

    def _files(self, image_id: str) -> list[Path]:
        return sorted((self._folder / image_id).glob("*.dcm"))

    def remove_label(self, label_id: str, label_tag: str) -> None:
        """Removes a label; not a final one, which is in the store.

        Raises:
            LabelError: for a final label.
        """
        if label_tag == FINAL:
            raise LabelError(f"{label_id}: its final label is in {self._client.base_url}; remove it there")
        super().remove_label(label_id, label_tag)

    def _segmentations(self, image_id: str) -> list[StoredSegmentation]:
        """Of an image, the one that counts first; where the store does not answer, as it last did."""
        contents = self._known()
        size = _size(contents, image_id)
        return [
            drawn for drawn in contents.labels.get(image_id, ()) if (drawn.uid, size) not in self._unreadable
        ]

    def _image_of(self, label_id: str) -> str:
        """The image of a segmentation's series; any other id is that of an image."""
        for image_id, labels in self._contents.last.labels.items():
            if any(drawn.series_uid == label_id for drawn in labels):
                return image_id
        return label_id

    def _label(self, image_id: str, drawn: StoredSegmentation) -> str:
        # Where more of the image has come, this makes an end of its label in the cache.
        self.get_image_uri(image_id)
        if not self._is_cached(image_id, drawn):
            image = self._open(image_id)
            with self._alone(image_id):
                if not self._is_cached(image_id, drawn):
                    labels = fetch_label(self._client, drawn, image)
                    self._cache(image_id, labels, image, FINAL, label_facts(drawn, labels.names))
        return str(super().get_label_uri(image_id, FINAL))

    def _is_cached(self, image_id: str, drawn: StoredSegmentation) -> bool:
        kept = super().get_label_uri(image_id, FINAL)
        return _is_of(super().get_label_info(image_id, FINAL), drawn) and Path(kept).is_file()

    def _cache(
        self, image_id: str, labels: LabelMap, image: MedicalImage, tag: str, info: dict[str, Any]
    ) -> str:
        """Puts a label into the cache."""
        with as_volume(labels, image) as path:
            self._save_label(image_id, path, tag, dict(info))
        if "ts" in info:
            # MONAI Label's time is that of the download, which would make an old label look new.
            self.update_label_info(image_id, tag, {"ts": info["ts"]})
        return image_id


def _size(contents: Contents, image_id: str) -> int | None:
    """How many files the store has of an image, where it says so."""
    image = contents.images.get(image_id)
    return image.instances if image else None


def _is_of(info: Mapping[str, Any], drawn: StoredSegmentation) -> bool:
    """Whether a label in the cache is that segmentation of the store."""
    return bool(info.get("SOPInstanceUID") == drawn.uid)
