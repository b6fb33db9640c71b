"""MONAI Label's datastore on a DICOMweb store, such as Orthanc.

Images are the store's series; their id is the Series Instance UID. Of a series of several clips each file is
an image, with its SOP Instance UID as id. Final labels are DICOM segmentations in
the store: those that clients save here are sent there, and those that OHIF or others stored there count as
well. Of several segmentations of an image, the last to arrive is its label. The cache has it as
``labels/final/<uid>.nii.gz`` on the image's grid, made from the segmentation on first request. The cache
can be deleted, except labels with other tags than ``final``.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import requests
from dicomweb_client.ext.gcp.session_utils import create_session_from_gcp_credentials
from monailabel.config import settings
from monailabel.datastore.dicom import DICOMwebClientX
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

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
from lib.datastores.local import SavedLabel
from lib.datastores.scanner import FINAL
from lib.errors import ImageError, LabelError
from lib.images.medical_image import MedicalImage
from lib.labels.values import LabelMap, listed_label_info

logger = logging.getLogger(__name__)


class DicomWebStore(DicomWebImages):
    """Images and labels of a DICOMweb store. Safe to use from several threads and processes."""

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        # Segmentations that cannot be read or do not fit their image, with its number of files: tried again
        # when more files of the image have arrived.
        self._unreadable: set[tuple[str, int | None]] = set()

    def labels(self) -> dict[str, str]:
        """SOP Instance UID of each image's label, as of the last listing."""
        last = self._contents.last
        return {uid: last.labels[uid][0].uid for uid in last.images if uid in last.labels}

    def json(self) -> dict[str, Any]:
        """MONAI Label's record with the store's final labels, downloaded or not."""
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
        """Information of a label; before its download, that of its header."""
        own: dict[str, Any] = super().get_label_info(label_id, label_tag)
        if label_tag != FINAL:
            return own
        drawn = self._segmentations(label_id)[:1]
        return (own if _is_of(own, drawn[0]) else label_facts(drawn[0])) if drawn else {}

    def get_label_uri(self, label_id: str, label_tag: str, image_id: str = "") -> str:
        """The file of a label on its image's grid; a final label is downloaded if necessary.

        Args:
            label_id: Image id, or Series Instance UID of the segmentation of a final label.
            label_tag: Tag such as ``final``.
            image_id: Image id, if ``label_id`` is that of a segmentation.

        Returns:
            A path; empty if there is no label, or none that can be read.

        Raises:
            BusyError: The store does not answer.
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
        """Paths of the images with a final label, and of the label, for training; both are downloaded.

        Raises:
            BusyError: The store does not answer.
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
        """Saves a label on its image's grid; a final label is sent to the store as a DICOM segmentation.

        Args:
            image_id: Image id.
            label_filename: Label file of any client, or a ``.bin`` of OHIF: raw uint8, first axis fastest.
            label_tag: Tag such as ``final``.
            label_info: Information of the client, with names and colours under ``label_info``.
            label_id: Not used; part of MONAI Label's signature.

        Raises:
            ImageNotFoundError: There is no such image.
            LabelError: The label does not fit its image, or the store refuses it.
            ReadOnlyError: MONAI Label's setting protects the store.
            BusyError: The store does not answer.
        """
        return self.replace_label(image_id, Path(label_filename), label_tag, label_info).label_id

    def replace_label(
        self, image_id: str, file: Path, tag: str, info: dict[str, Any], replaces: str | None = None
    ) -> SavedLabel:
        """``save_label``, where the stored label is still the version that the new one was made from.

        A DICOM store has no such step: what somebody else stores while this one is on its way stays there
        beside it.
        """
        self.require_writable()
        image, listed = self._open(image_id), listed_label_info(info)
        labels, info = open_label(file, image, listed), dict(info)
        with self._saving(image_id):
            self._require_version(image_id, tag, replaces)
            if tag == FINAL:
                drawn = send_label(self._client, labels, image, self._files(image_id), listed)
                self._contents.forget()
                info.update(label_facts(drawn, labels.names, listed))
            self._cache(image_id, labels, image, tag, info)
            version = drawn.uid if tag == FINAL else self.label_version(image_id, tag)
        return SavedLabel(image_id, version)

    def label_version(self, image_id: str, tag: str) -> str:
        """Version of a label, of a final one its SOP Instance UID, as the store has it now."""
        if tag != FINAL:
            return super().label_version(image_id, tag)
        self._contents.forget()
        return next((drawn.uid for drawn in self._segmentations(image_id)), "")

    def _saving(self, image_id: str) -> AbstractContextManager[None]:
        # Of this image alone: sending a label may take long.
        return self._alone(image_id)

    def as_dicom_seg(self, image_id: str, label: Path, label_info: Sequence[Mapping[str, Any]]) -> Path:
        """Writes a label as a DICOM segmentation without sending it to the store.

        Args:
            image_id: Image id.
            label: Label file of a client or a task.
            label_info: Names and colours.

        Returns:
            A temporary file, which the caller deletes.

        Raises:
            LabelError: The label does not fit its image, or is empty.
        """
        image = self._open(image_id)
        return new_segmentation(
            open_label(label, image, label_info), image, self._files(image_id), label_info
        )

    def _files(self, image_id: str) -> list[Path]:
        return sorted((self._folder / image_id).glob("*.dcm"))

    def remove_label(self, label_id: str, label_tag: str) -> None:
        """Deletes a label that is not final: final labels are deleted in the store.

        Raises:
            LabelError: The label is final.
        """
        if label_tag == FINAL:
            raise LabelError(f"{label_id}: its final label is in {self._client.base_url}; remove it there")
        super().remove_label(label_id, label_tag)

    def _segmentations(self, image_id: str) -> list[StoredSegmentation]:
        """Segmentations of an image, its label first; of the last listing if the store does not answer."""
        contents = self._known()
        size = _size(contents, image_id)
        return [
            drawn for drawn in contents.labels.get(image_id, ()) if (drawn.uid, size) not in self._unreadable
        ]

    def _image_of(self, label_id: str) -> str:
        """Image id of a segmentation's series; any other id is an image id already."""
        last = self._contents.last
        found = [uid for uid, labels in last.labels.items() if label_id in (one.series_uid for one in labels)]
        return next((uid for uid in found if uid in last.images), found[-1] if found else label_id)

    def _label(self, image_id: str, drawn: StoredSegmentation) -> str:
        # If more files of the image have arrived, this deletes its label from the cache.
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
    ) -> None:
        """Puts a label into the cache."""
        with as_volume(labels, image) as path:
            self._save_label(image_id, path, tag, dict(info))
        if "ts" in info:
            # The time of the download would make an old label look new.
            self.update_label_info(image_id, tag, {"ts": info["ts"]})


def _size(contents: Contents, image_id: str) -> int | None:
    """Number of an image's files in the store; None if the store does not say."""
    image = contents.images.get(image_id)
    return image.instances if image else None


def _is_of(info: Mapping[str, Any], drawn: StoredSegmentation) -> bool:
    """Whether a label in the cache was made from a segmentation."""
    return bool(info.get("SOPInstanceUID") == drawn.uid)


# Time limits in seconds for the connection and for silence: a store packs a series before it sends it.
_CONNECT_S, _SILENT_S = 5.0, 300.0
# Connections to the store at the same time.
_CONNECTIONS = 32
_GOOGLE = "googleapis.com"
_FILTER = "MONAI_LABEL_DICOMWEB_SEARCH_FILTER"


def open_store(url: str, max_voxels: int) -> DicomWebStore:
    """Opens a store without a request to it, so that the server can start before the store.

    Args:
        url: DICOMweb root of the store.
        max_voxels: Largest image that is opened, in voxels.
    """
    client = DICOMwebClientX(
        url=url,
        session=open_session(url),
        qido_url_prefix=settings.MONAI_LABEL_QIDO_PREFIX,
        wado_url_prefix=settings.MONAI_LABEL_WADO_PREFIX,
        stow_url_prefix=settings.MONAI_LABEL_STOW_PREFIX,
    )
    # The client tries five times by itself, for half a minute, whatever the error is.
    client.set_http_retry_params(retry=False)
    cache = settings.MONAI_LABEL_DICOMWEB_CACHE_PATH or settings.MONAI_LABEL_DATASTORE_CACHE_PATH
    return DicomWebStore(
        client,
        _search_filter(),
        Path(cache.strip()) if cache.strip() else None,
        max_voxels,
        settings.MONAI_LABEL_DICOMWEB_FETCH_BY_FRAME,
        settings.MONAI_LABEL_DICOMWEB_CONVERT_TO_NIFTI,
    )


def _search_filter() -> dict[str, Any]:
    """The user's filter of images; without one, none: MONAI Label's default lists CT only.

    Background processes get all settings as environment variables, so that the default looks like a choice of
    the user there. It is therefore replaced in the environment as well.
    """
    if _FILTER not in settings.model_fields_set:
        settings.MONAI_LABEL_DICOMWEB_SEARCH_FILTER = {}
        os.environ[_FILTER] = "{}"
    return dict(settings.MONAI_LABEL_DICOMWEB_SEARCH_FILTER)


def open_session(url: str) -> requests.Session:
    """A session with the credentials of the settings and time limits; no redirects to other hosts."""
    session = create_session_from_gcp_credentials() if _GOOGLE in url else requests.Session()
    user, password = settings.MONAI_LABEL_DICOMWEB_USERNAME, settings.MONAI_LABEL_DICOMWEB_PASSWORD
    if user and password and _GOOGLE not in url:
        session.auth = (user, password)
    # A store may close an idle connection, which shows when the next request fails: it is sent again.
    again = Retry(total=1, connect=0, backoff_factor=0.1)
    session.get_redirect_target = partial(_redirect_target, session)  # type: ignore[method-assign]
    adapter = _Limited(pool_maxsize=_CONNECTIONS, max_retries=again)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session


def _redirect_target(session: requests.Session, answer: requests.Response) -> str | None:
    """The address that a store sends its client to, on the same host alone.

    Raises:
        requests.TooManyRedirects: Another host, which would be asked in this server's name.
    """
    target: str | None = requests.Session.get_redirect_target(session, answer)
    if target is not None and session.should_strip_auth(answer.url, urljoin(answer.url, target)):
        answer.close()
        raise requests.TooManyRedirects("it redirects to another host, which is not asked")
    return target


class _Limited(HTTPAdapter):
    """Adds a time limit to each request, and sends wildcards as Orthanc reads them."""

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        options["timeout"] = options.get("timeout") or (_CONNECT_S, _SILENT_S)
        # Orthanc 1.10 does not decode a percent-encoded asterisk.
        request.url = (request.url or "").replace("%2A", "*")
        return super().send(request, *args, **options)
