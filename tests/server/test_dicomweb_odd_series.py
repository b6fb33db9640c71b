"""Series as anonymizers and old devices leave them: what can be segmented can be saved in the store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
import requests
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from sample_study.dicom import Series, write_multiframe_ultrasound, write_series
from tests.support import phantoms
from tests.support.client import LIMIT_S, Client
from tests.support.dicomweb_standin import DicomWebStandIn
from tests.support.server import Server, copy_model_folder

CT = phantoms.ct()
LESION = CT.click("lesion")
INFO = '{"label_info": [{"name": "lesion", "idx": 1}]}'


def without(name: str) -> Callable[[Dataset], None]:
    return lambda header: delattr(header, name)


def with_text(tag: int, vr: str, text: str) -> Callable[[Dataset], None]:
    """Writes a value as it stands, which pydicom would refuse."""
    content = text.encode().ljust(len(text) + len(text) % 2)
    element = RawDataElement(Tag(tag), vr, len(content), content, 0, False, True)
    return lambda header: header._dict.update({Tag(tag): element})


CHANGES = {
    "no position": without("ImagePositionPatient"),
    "no orientation": without("ImageOrientationPatient"),
    "no spacing": without("PixelSpacing"),
    "day 0": with_text(0x00080020, "DA", "20200000"),
    "date with dashes": with_text(0x00080020, "DA", "2020-01-01"),
    "time with colons": with_text(0x00080030, "TM", "12:00:00"),
    "date in words": with_text(0x00100030, "DA", "unknown"),
}


def write_changed(folder: Path, change: Callable[[Dataset], None]) -> Series:
    series = write_series(folder, CT.image[:, :, : LESION[2] + 2], CT.affine)
    for file in series.files:
        header = pydicom.dcmread(file)
        change(header)
        header.save_as(file)
    return series


def write_two_clips(folder: Path) -> Series:
    """Two cine loops in one series, as an echo examination is stored."""
    frames = np.random.default_rng(0).integers(0, 255, (3, 40, 50, 3), dtype=np.uint8)
    first, second = (write_multiframe_ultrasound(folder / name, frames) for name in "ab")
    header = pydicom.dcmread(second.files[0])
    header.StudyInstanceUID, header.SeriesInstanceUID = first.study_uid, first.series_uid
    header.save_as(second.files[0])
    return first


@pytest.mark.slow
def test_what_can_be_segmented_can_be_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    series = {name: write_changed(tmp_path / "series" / name, change) for name, change in CHANGES.items()}
    clips = write_two_clips(tmp_path / "series" / "clips")
    monkeypatch.setenv("MONAI_LABEL_DICOMWEB_CACHE_PATH", str(tmp_path / "cache"))
    with DicomWebStandIn() as store:
        store.store(tmp_path / "series")
        server = Server(
            store.dicomweb_url, tmp_path, {"model_dir": str(copy_model_folder(tmp_path / "model"))}
        )
        server.start()
        try:
            client = Client(server.url)
            for name, one in series.items():
                found = client.infer("biosam2_point", one.series_uid, {"foreground": [LESION]})
                assert found.status == 200, f"{name}: {found.body[:300]!r}"
                saved = requests.put(
                    f"{server.url}/datastore/label",
                    params={"image": one.series_uid, "tag": "final"},
                    files={"label": (found.file.filename, found.file.content), "params": (None, INFO)},
                    timeout=LIMIT_S,
                )
                assert saved.status_code == 200, f"{name}: {saved.text}"
            assert len(store.select(Modality="SEG")) == len(series)
            refused = client.infer("biosam2_point", clips.series_uid, {"foreground": [[5, 5, 0]]})
            assert (refused.status, "2 clips" in refused.detail) == (422, True), refused.body
        finally:
            server.stop()
