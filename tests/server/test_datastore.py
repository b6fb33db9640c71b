"""The routes to images and labels: what is good is kept as it was sent, and what is not changes nothing."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import requests
import SimpleITK as sitk

from tests.support import slides, studies
from tests.support.client import LIMIT_S
from tests.support.server import Server
from tests.support.studies import tree_digest, write_nifti, write_nrrd, write_picture

CT = studies.phantom("ct")
TRUTH = (CT.objects["lesion"] + 2 * CT.objects["organ"]).astype(np.uint8)
INFO = {"label_info": [{"name": "lesion", "idx": 1}, {"name": "organ", "idx": 2}]}
# Where a NIfTI file keeps the first number of its affine.
SROW_X = 280
# What the server writes into the folder whatever happens, scores of the images among it.
BOOK = "datastore_v2.json"


class Store:
    """The datastore of a server, over HTTP."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def ask(self, method: str, path: str, **others: Any) -> requests.Response:
        url = f"{self.server.url}/datastore{path}"
        return requests.request(method, url, timeout=LIMIT_S, **others)

    def put_label(
        self,
        file: Path,
        image: str = "ct",
        params: Any = INFO,
        *,
        raw: str | None = None,
        name: str | None = None,
        **query: str,
    ) -> requests.Response:
        fields = {"params": (None, json.dumps(params) if raw is None else raw)}
        sent = {"label": (name or file.name, file.read_bytes(), "application/octet-stream")}
        return self.ask("PUT", "/label", params={"image": image, **query}, files={**fields, **sent})

    def put_image(
        self, file: Path, raw: str = "{}", name: str | None = None, **query: str
    ) -> requests.Response:
        sent = {"file": (name or file.name, file.read_bytes()), "params": (None, raw)}
        return self.ask("PUT", "/image", params=query, files=sent)

    def objects(self) -> dict[str, Any]:
        return self.ask("GET", "/", params={"output": "all"}).json()["objects"]

    def label(self, image: str = "ct", tag: str = "final") -> bytes:
        answer = self.ask("GET", "/label", params={"label": image, "tag": tag})
        assert answer.status_code == 200, answer.text
        return answer.content

    def files(self) -> dict[str, str]:
        found = tree_digest(self.server.studies)
        return {name: digest for name, digest in found.items() if name != BOOK and not name.startswith(".")}

    def labels(self) -> dict[str, dict[str, Any]]:
        """What is known of each image's labels, and of what was sent with it."""
        return {
            name: {"labels": item["labels"], "sent": item["image"]["info"].get("user")}
            for name, item in self.objects().items()
        }


@pytest.fixture(scope="module")
def store(scratch: Server) -> Store:
    return Store(scratch)


@pytest.fixture
def unchanged(store: Store) -> Iterator[Store]:
    """The datastore, which is the same afterwards, and answers."""
    files, labels = store.files(), store.labels()
    yield store
    assert store.files() == files
    assert store.labels() == labels


def _reason(answer: requests.Response, *statuses: int) -> str:
    assert answer.status_code in statuses, f"{answer.status_code}: {answer.text[:500]}"
    detail = answer.json()["detail"]
    assert isinstance(detail, str)
    assert len(detail) > 20
    return detail


def _seg_nrrd(path: Path) -> Path:
    """As 3D Slicer saves a segmentation that may overlap."""
    image = sitk.ReadImage(str(write_nrrd(path.with_name("plain.nrrd"), TRUTH, CT.affine)))
    for number, name in enumerate(("lesion", "organ")):
        fields = {"ID": f"Segment_{number + 1}", "Name": name, "LabelValue": number + 1, "Layer": 0}
        for key, value in fields.items():
            image.SetMetaData(f"Segment{number}_{key}", str(value))
    sitk.WriteImage(image, str(path))
    return path


def _asap(path: Path, offset: float = 0.0) -> Path:
    """As QuPath saves polygons: around the cell of the grey picture."""
    x0, y0, x1, y1 = (value + offset for value in studies.phantom("grey").box("cell"))
    corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
    listed = "".join(f'<Coordinate Order="{n}" X="{x}" Y="{y}"/>' for n, (x, y) in enumerate(corners))
    path.write_text(
        '<ASAP_Annotations><Annotations><Annotation Name="cell" Type="Polygon" PartOfGroup="cell">'
        f"<Coordinates>{listed}</Coordinates></Annotation></Annotations></ASAP_Annotations>"
    )
    return path


def _grey_label(path: Path) -> Path:
    return write_picture(path, studies.phantom("grey").objects["cell"].astype(np.uint8))


@pytest.mark.parametrize("kind", ["nii.gz", "nrrd", "seg.nrrd", "coarser", "without info"])
def test_a_good_label_of_a_volume_is_kept_as_it_was_sent(store: Store, tmp_path: Path, kind: str) -> None:
    coarse = CT.affine @ np.diag([2.0, 2.0, 1.0, 1.0])
    file = {
        "nii.gz": lambda: write_nifti(tmp_path / "label.nii.gz", TRUTH, CT.affine),
        "nrrd": lambda: write_nrrd(tmp_path / "label.nrrd", TRUTH, CT.affine),
        "seg.nrrd": lambda: _seg_nrrd(tmp_path / "label.seg.nrrd"),
        "coarser": lambda: write_nifti(tmp_path / "label.nii.gz", TRUTH[::2, ::2], coarse),
        "without info": lambda: write_nifti(tmp_path / "label.nii", TRUTH, CT.affine),
    }[kind]()
    answer = store.put_label(file, params={} if kind == "without info" else INFO)
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"image": "ct", "label": "ct"}
    assert store.label() == file.read_bytes()
    known = store.objects()["ct"]["labels"]["final"]["info"]
    assert known.get("label_info", INFO["label_info"]) == INFO["label_info"]
    # One label, in one file: what was there before does not come back when this one goes.
    assert [name for name in store.files() if name.startswith("labels/final/ct")] == [
        f"labels/final/{known['name']}"
    ]


@pytest.mark.parametrize("suffix", ["png", "xml"])
def test_a_good_label_of_a_picture_is_kept_as_it_was_sent(store: Store, tmp_path: Path, suffix: str) -> None:
    write = {"png": _grey_label, "xml": _asap}[suffix]
    file = write(tmp_path / f"label.{suffix}")
    answer = store.put_label(file, "grey", {"label_info": [{"name": "cell", "idx": 1}]})
    assert answer.status_code == 200, answer.text
    assert store.label("grey") == file.read_bytes()


def test_raw_bytes_become_a_volume_that_others_can_read(store: Store, tmp_path: Path) -> None:
    # As the former OHIF sends it: uint8 of the whole series, x fastest.
    file = tmp_path / "label.bin"
    file.write_bytes(TRUTH.tobytes(order="F"))
    assert store.put_label(file).status_code == 200
    kept = nib.Nifti1Image.from_bytes(gzip.decompress(store.label()))
    np.testing.assert_array_equal(np.asarray(kept.dataobj), TRUTH)
    np.testing.assert_allclose(kept.affine, CT.affine, atol=1e-5)


def test_names_of_a_client_s_machine_do_not_matter(store: Store, tmp_path: Path) -> None:
    file = write_nifti(tmp_path / "label.nii.gz", TRUTH, CT.affine)
    for name in ("/home/me/1.2.840.113.nii.gz", "C:\\Users\\me\\my label.NII.GZ", "../../etc/label.nii.gz"):
        assert store.put_label(file, name=name).status_code == 200
        assert store.objects()["ct"]["labels"]["final"]["ext"] == ".nii.gz"


def _bad_labels(folder: Path) -> dict[str, Path]:
    good = write_nifti(folder / "good.nii.gz", TRUTH, CT.affine)
    away = CT.affine.copy()
    away[:3, 3] += 2000
    files = {
        "empty file": folder / "empty.nii.gz",
        "garbage": folder / "garbage.nii.gz",
        "cut off": folder / "cut.nii.gz",
        "no label type": folder / "label.txt",
        "without type": folder / "label",
        "of short bytes": folder / "short.bin",
    }
    files["empty file"].write_bytes(b"")
    files["garbage"].write_bytes(gzip.compress(b"this is no label " * 300))
    files["cut off"].write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    files["no label type"].write_text("a label")
    files["without type"].write_bytes(good.read_bytes())
    files["of short bytes"].write_bytes(b"\1" * 100)
    files["nothing drawn"] = write_nifti(folder / "zero.nii.gz", np.zeros_like(TRUTH), CT.affine)
    files["elsewhere"] = write_nifti(folder / "away.nii.gz", TRUTH, away)
    files["impossible grid"] = write_nrrd(folder / "parallel.nrrd", TRUTH, CT.affine)
    header = files["impossible grid"].read_bytes()
    start = header.index(b"space directions: ") + len(b"space directions: ")
    stop = header.index(b"\n", start)
    files["impossible grid"].write_bytes(header[:start] + b"(1,0,0) (1,0,0) (0,0,3)" + header[stop:])
    files["grid of nan"] = write_nifti(folder / "nan.nii", TRUTH, CT.affine)
    content = bytearray(files["grid of nan"].read_bytes())
    content[SROW_X : SROW_X + 4] = np.float32(np.nan).tobytes()
    files["grid of nan"].write_bytes(content)
    files["probabilities"] = write_nifti(folder / "half.nii.gz", TRUTH / np.float32(4), CT.affine)
    files["another picture's"] = _grey_label(folder / "cell.png")
    files["polygons"] = _asap(folder / "polygons.xml")
    return files


BAD_LABELS = [
    "empty file", "garbage", "cut off", "no label type", "without type", "of short bytes", "nothing drawn",
    "elsewhere", "impossible grid", "grid of nan", "probabilities", "another picture's", "polygons",
]  # fmt: skip


@pytest.mark.parametrize("kind", BAD_LABELS)
def test_a_label_that_no_training_could_read_is_refused(unchanged: Store, tmp_path: Path, kind: str) -> None:
    _reason(unchanged.put_label(_bad_labels(tmp_path)[kind]), 422)


def test_why_a_label_of_another_image_is_refused(unchanged: Store, tmp_path: Path) -> None:
    reason = _reason(unchanged.put_label(_bad_labels(tmp_path)["elsewhere"]), 422)
    assert "mm apart" in reason
    reason = _reason(unchanged.put_label(_grey_label(tmp_path / "cell.png"), "tiny"), 422)
    assert "104 x 72 x 1" in reason
    assert "30 x 20 x 1" in reason


@pytest.mark.parametrize(
    ("raw", "word"),
    [
        ("{", "not JSON"),
        ("[]", "object"),
        ("7", "object"),
        ('{"label_info": "spleen"}', "label_info"),
        ('{"label_info": [1]}', "label_info"),
        ('{"a": NaN}', "NaN"),
    ],
)
def test_params_that_are_no_plain_json_are_refused(
    unchanged: Store, tmp_path: Path, raw: str, word: str
) -> None:
    file = write_nifti(tmp_path / "label.nii.gz", TRUTH, CT.affine)
    assert word in _reason(unchanged.put_label(file, raw=raw), 400)
    assert word in _reason(unchanged.put_image(file, raw=raw, image="other"), 400)
    if "label_info" not in raw:
        info = {"info": (None, raw)}
        assert word in _reason(unchanged.ask("PUT", "/image/info?image=ct", files=info), 400)


@pytest.mark.parametrize("tag", ["..", "a/b", "a b", "x" * 65, "\\"])
def test_a_tag_that_can_be_no_folder_is_refused(unchanged: Store, tmp_path: Path, tag: str) -> None:
    file = write_nifti(tmp_path / "label.nii.gz", TRUTH, CT.affine)
    assert "tag" in _reason(unchanged.put_label(file, tag=tag), 400)


@pytest.mark.parametrize(
    ("image", "status"),
    [
        ("nobody", 404),
        ("../ct", 400),
        ("/etc/passwd", 400),
        ("a\\b", 400),
        ("..", 400),
        (".", 400),
        ("", 400),
    ],
)
def test_an_id_that_is_not_there_is_refused_by_every_route(
    unchanged: Store, tmp_path: Path, image: str, status: int
) -> None:
    file = write_nifti(tmp_path / "label.nii.gz", TRUTH, CT.affine)
    _reason(unchanged.put_label(file, image), status)
    for method, path in [("GET", "/image"), ("GET", "/image/info"), ("PUT", "/image/info")]:
        _reason(unchanged.ask(method, path, params={"image": image}), status)
    tagged = {"tag": "final"}
    for method, path in [("GET", "/label"), ("GET", "/label/info"), ("PUT", "/label/info")]:
        _reason(unchanged.ask(method, path, params={"label": image, **tagged}), status)
    for path in ("/", "/image"):
        _reason(unchanged.ask("DELETE", path, params={"id": image}), status)
    _reason(unchanged.ask("DELETE", "/label", params={"id": image, **tagged}), status)
    assert unchanged.ask("HEAD", "/image", params={"image": image}).status_code == status
    assert unchanged.ask("HEAD", "/label", params={"image": image, **tagged}).status_code == status


def test_a_label_that_is_not_there_is_said_to_be_missing(unchanged: Store) -> None:
    assert "it has none" in _reason(
        unchanged.ask("GET", "/label", params={"label": "mr", "tag": "final"}), 404
    )


def test_an_image_comes_and_goes(store: Store, tmp_path: Path) -> None:
    file = write_nifti(tmp_path / "1.2.840.113.nii.gz", CT.image, CT.affine)
    assert store.put_image(file).json() == {"image": "1.2.840.113"}
    named = store.put_image(file, image="my scan", raw='{"station": 7}')
    assert named.json() == {"image": "my scan"}
    got = store.ask("GET", "/image", params={"image": "my scan"})
    assert got.content == file.read_bytes()
    assert store.ask("HEAD", "/image", params={"image": "my scan"}).status_code == 200
    info = store.ask("GET", "/image/info", params={"image": "my scan"}).json()
    assert info["station"] == 7
    assert Path(info["path"]).name == "my scan.nii.gz"
    changed = store.ask("PUT", "/image/info?image=my scan", files={"info": (None, '{"seen": true}')})
    assert changed.status_code == 200
    assert store.objects()["my scan"]["image"]["info"]["seen"] is True
    for name in ("my scan", "1.2.840.113"):
        assert store.ask("DELETE", "/image", params={"id": name}).status_code == 200
        assert not (store.server.studies / f"{name}.nii.gz").exists()


@pytest.mark.parametrize("name", ["slide.tif", "slide.svs"])
def test_a_slide_that_is_too_large_to_be_opened_takes_outlines(
    store: Store, tmp_path: Path, name: str
) -> None:
    pixels = slides.paint(640, 480, slides.scatter(640, 480, 3, seed=1), seed=1)
    assert pixels.shape[0] * pixels.shape[1] > studies.MAX_VOXELS
    file = slides.write_slide(tmp_path / name, pixels, description=slides.APERIO)
    image = name.replace(".", " ")
    assert store.put_image(file, image=image).status_code == 200
    outlines = _asap(tmp_path / "label.xml", offset=300)
    assert store.put_label(outlines, image, {"label_info": [{"name": "cell", "idx": 1}]}).status_code == 200
    assert store.label(image) == outlines.read_bytes()
    for content, word in (("<ASAP_Annotations/>", "<Annotation>"), ("no outlines", "no XML")):
        outlines.write_text(content)
        assert word in _reason(store.put_label(outlines, image), 422)
    outlines.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert store.put_image(outlines, name=name, image="cut off").status_code == 422
    assert store.ask("DELETE", "/image", params={"id": image}).status_code == 200


@pytest.mark.parametrize(
    ("name", "statuses"),
    [
        ("garbage.nii.gz", (422,)),
        ("truncated.nii.gz", (422,)),
        ("nan.nii.gz", (422,)),
        ("four_d.nii.gz", (422,)),
        ("empty.nrrd", (422,)),
        ("garbage_picture.png", (422,)),
        ("large.nii.gz", (413,)),
    ],
)
def test_an_image_that_cannot_be_opened_is_refused(
    unchanged: Store, name: str, statuses: tuple[int, ...]
) -> None:
    _reason(unchanged.put_image(unchanged.server.studies / name, image="new"), *statuses)


def test_an_image_of_a_type_that_is_not_listed_is_refused(unchanged: Store, tmp_path: Path) -> None:
    file = tmp_path / "image.mha"
    sitk.WriteImage(sitk.ReadImage(str(unchanged.server.studies / "ct.nii.gz")), str(file))
    assert ".nii.gz" in _reason(unchanged.put_image(file), 422)


def test_another_image_does_not_take_the_place_of_one_with_labels(store: Store, tmp_path: Path) -> None:
    first = write_nifti(tmp_path / "a.nii.gz", CT.image, CT.affine)
    other = write_nifti(tmp_path / "b.nii.gz", CT.image + 1, CT.affine)
    label = write_nifti(tmp_path / "label.nii.gz", TRUTH, CT.affine)
    assert store.put_image(first, image="kept").status_code == 200
    # Without labels, another file of this name is a correction.
    assert store.put_image(other, image="kept").status_code == 200
    assert store.put_label(label, "kept").status_code == 200
    assert store.put_image(other, image="kept").json() == {"image": "kept"}
    assert "final" in store.objects()["kept"]["labels"]
    assert "labels" in _reason(store.put_image(first, image="kept"), 409)
    assert store.label("kept") == label.read_bytes()
    assert store.ask("DELETE", "/", params={"id": "kept"}).status_code == 200


def test_the_other_routes_answer_as_ever(store: Store, tmp_path: Path) -> None:
    file = write_nifti(tmp_path / "label.nii.gz", TRUTH, CT.affine)
    assert store.put_label(file, tag="second").status_code == 200
    tagged = {"label": "ct", "tag": "second"}
    assert store.ask("GET", "/label/info", params=tagged).json()["label_info"] == INFO["label_info"]
    assert store.ask("PUT", "/label/info", params=tagged, files={"info": (None, "{}")}).status_code == 200
    old = store.ask("PUT", "/updatelabelinfo", params=tagged, files={"params": (None, '{"done": 1}')})
    assert old.status_code == 200
    assert store.ask("GET", "/label/info", params=tagged).json()["done"] == 1
    assert store.ask("HEAD", "/label", params={"image": "ct", "tag": "second"}).status_code == 200
    assert store.ask("DELETE", "/label", params={"id": "ct", "tag": "second"}).status_code == 200
    assert store.put_label(file).status_code == 200
    assert "total" in store.ask("GET", "/").json()
    pairs = store.ask("GET", "/", params={"output": "train"}).json()
    assert any(pair["image"].endswith("ct.nii.gz") for pair in pairs)
    archive = store.ask("GET", "/dataset")
    assert archive.content.startswith(b"PK")
    assert io.BytesIO(archive.content).getbuffer().nbytes > file.stat().st_size
