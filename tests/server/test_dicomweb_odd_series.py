"""Series as anonymizers and old devices leave them: what can be segmented can be saved in the store."""

from __future__ import annotations

import io
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


def tilt(header: Dataset) -> None:
    """Shifts a slice as a gantry does that is tilted by 20 degrees."""
    x, y, z = header.ImagePositionPatient
    header.ImagePositionPatient = [x, round(y + np.tan(np.deg2rad(20)) * z, 6), z]


CHANGES = {
    "tilted gantry": tilt,
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


# Columns and rows of the object on each of two clips.
OBJECTS = (np.s_[20:50, 20:44], np.s_[75:105, 58:82])


def write_two_clips(folder: Path) -> tuple[str, list[str]]:
    """Two cine loops in one series, as an echo examination is stored: UIDs of the series and the files."""
    (series, study), files = (pydicom.uid.generate_uid() for _ in range(2)), []
    for name, (x, y) in zip("ab", OBJECTS, strict=True):
        frames = np.random.default_rng(0).integers(0, 40, (3, 100, 120, 3), dtype=np.uint8)
        frames[:, y, x] = (200, 180, 60)
        (file,) = write_multiframe_ultrasound(folder / name, frames, study_uid=study).files
        header = pydicom.dcmread(file)
        header.SeriesInstanceUID = series
        header.save_as(file)
        files.append(str(header.SOPInstanceUID))
    return series, files


def check_clip(url: str, store: DicomWebStandIn, clip: str, place: tuple[slice, slice]) -> None:
    """A click on one clip by its own UID: its object, saved as a segmentation of that file."""
    truth = np.zeros((120, 100), bool)
    truth[place] = True
    click = [int(side.start + side.stop) // 2 for side in place]
    answer = Client(url).infer("biosam2_point", clip, {"foreground": [[*click, 1]]})
    assert answer.status == 200, answer.body
    mask = answer.mask[:, :, 1] > 0
    assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > 0.9
    saved = requests.put(
        f"{url}/datastore/label",
        params={"image": clip, "tag": "final"},
        files={"label": (answer.file.filename, answer.file.content), "params": (None, INFO)},
        timeout=LIMIT_S,
    )
    assert saved.status_code == 200, saved.text
    drawn = [one for one in store.select(Modality="SEG") if clip in str(one.ReferencedSeriesSequence)]
    assert len(drawn) == 1
    kept = requests.get(f"{url}/datastore/", params={"output": "all"}, timeout=LIMIT_S).json()["objects"]
    assert kept[clip]["labels"]["final"]["info"]["SOPInstanceUID"] == drawn[0].SOPInstanceUID


def check_tilted(url: str, series: Series) -> None:
    """Segmented slice by slice, and no NIfTI volume, of which the answer says why."""
    places = {tuple(map(float, pydicom.dcmread(file).ImagePositionPatient)) for file in series.files}
    prompts = {"foreground": [LESION]}
    answer = Client(url).infer("biosam2_point", series.series_uid, prompts, query={"output": "dicom_seg"})
    groups = pydicom.dcmread(io.BytesIO(answer.file.content)).PerFrameFunctionalGroupsSequence
    found = {tuple(map(float, group.PlanePositionSequence[0].ImagePositionPatient)) for group in groups}
    assert found
    assert all(min(np.abs(np.subtract(one, place)).max() for place in places) < 1e-3 for one in found)
    refused = requests.get(f"{url}/datastore/image", params={"image": series.series_uid}, timeout=LIMIT_S)
    assert refused.status_code == 404, refused.content[:300]
    assert "cannot be downloaded as one volume" in refused.json()["detail"]
    assert "tilted gantry" in refused.json()["detail"]


@pytest.mark.slow
def test_what_can_be_segmented_can_be_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    series = {name: write_changed(tmp_path / "series" / name, change) for name, change in CHANGES.items()}
    whole, clips = write_two_clips(tmp_path / "series" / "clips")
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
            check_tilted(server.url, series["tilted gantry"])
            refused = client.infer("biosam2_point", whole, {"foreground": [[5, 5, 0]]})
            assert (refused.status, "2 clips" in refused.detail) == (422, True), refused.body
            assert all(clip in refused.detail for clip in clips)
            for clip, place in zip(clips, OBJECTS, strict=True):
                check_clip(server.url, store, clip, place)
        finally:
            server.stop()
