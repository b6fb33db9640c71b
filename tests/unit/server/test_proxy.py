"""OHIF's way to the store, through a FastAPI application."""

import pytest
from monailabel.config import settings
from monailabel.datastore.dicom import DICOMwebClientX

from lib.datastores.dicomweb import DicomWebStore, open_session
from lib.images.reading import read_image
from lib.labels.dicom_seg_writing import describe_segments, write_dicom_seg
from lib.server.checks import Checks
from lib.server.proxy import routes
from tests.unit.datastores.conftest import LABEL, MANY, SHAPE

HEADERS = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=b'}


@pytest.fixture
def datastore(pacs, tmp_path):
    client = DICOMwebClientX(pacs.store.dicomweb_url, session=open_session(pacs.store.dicomweb_url))
    client.set_http_retry_params(retry=False)
    return DicomWebStore(client, {}, tmp_path / "cache", MANY)


@pytest.fixture
def saved():
    return []


@pytest.fixture
def web(datastore, saved, serve):
    checks = Checks(datastore, None)
    return serve(routes, checks=checks, on_label=lambda image, label: saved.append((image, label)))


@pytest.fixture
def body(pacs):
    """A segmentation as OHIF posts it."""
    path = pacs.folder / "drawn.dcm"
    image = read_image(pacs.ct.files[0].parent, MANY)
    write_dicom_seg(path, LABEL, image, pacs.ct.files, describe_segments({1: "a", 2: "b"}))
    return b"--b\r\nContent-Type: application/dicom\r\n\r\n" + path.read_bytes() + b"\r\n--b--"


def test_the_query_arrives(web, pacs):
    answer = web.get(
        "/proxy/dicom/qido/studies?limit=101&offset=0&PatientID=phant*&includefield=00081030,00080060"
    )
    assert len(answer.json()) == 2
    assert not {"access-control-allow-origin", "set-cookie"} & set(answer.headers)
    assert pacs.store.requests[-1].endswith(
        "/studies?limit=101&offset=0&PatientID=phant*&includefield=00081030,00080060"
    )
    assert web.get("/proxy/dicom/qido/studies?PatientID=nobody").json() == []


def test_files_arrive_as_they_are(web, pacs):
    address = f"/proxy/dicom/wado/studies/{pacs.ct.study_uid}/series/{pacs.ct.series_uid}"
    answer = web.get(address)
    assert answer.headers["content-type"].startswith("multipart/related")
    assert answer.content.count(b"--a-boundary-of-parts\r\n") == SHAPE[2]
    assert all(file.read_bytes() in answer.content for file in pacs.ct.files)
    assert web.get("/proxy/dicom/wado/studies/1.2.3/metadata").status_code == 404


def test_what_is_posted_is_a_label_at_once(web, pacs, datastore, body, saved):
    datastore.list_images()
    answer = web.post("/proxy/dicom/wado/studies", content=body, headers=HEADERS)
    assert answer.status_code == 200
    assert saved == [(pacs.ct.series_uid, pacs.ct.series_uid)]
    assert datastore.get_labeled_images() == [pacs.ct.series_uid]
    assert len(pacs.store.select(Modality="SEG")) == 1


def test_what_the_store_refuses_is_no_label(web, pacs, datastore, body, saved):
    pacs.store.refuses = True
    assert web.post("/proxy/dicom/wado/studies", content=body, headers=HEADERS).status_code == 409
    assert (saved, datastore.get_labeled_images()) == ([], [])


def test_nobody_leaves_the_stores_own_addresses(web, pacs):
    for path in (
        "wado/%2e%2e/%2e%2e/system",
        "wado/%252e%252e/system",
        "wado/%25252e./system",
        "..%5c..%5csystem",
        "qido/a/%2e%2e/%2e%2e/b",
        "wado/..;/..;/system",
        "wado/..;a=b/system",
        "wado/%2e%2e%3b/system",
        "wado/%2e;/system",
        "wado/.%00/..;/system",
    ):
        answer = web.get(f"/proxy/dicom/{path}")
        assert (answer.status_code, "leaves the DICOM store's own addresses" in answer.text) == (400, True)
    assert pacs.store.requests == []


def test_a_path_cannot_bring_a_query_or_another_host(web, pacs):
    for path in (
        "qido/studies%3Flimit=1",
        "qido/studies%23x",
        "//example.org/studies",
        "http://example.org/x",
    ):
        web.get(f"/proxy/dicom/{path}")
    assert pacs.store.requests
    assert not any(mark in request for request in pacs.store.requests for mark in "?#")


def test_a_store_that_is_down_is_a_bad_gateway(web, pacs):
    pacs.store.stop()
    answer = web.get("/proxy/dicom/qido/studies")
    assert (answer.status_code, "does not answer" in answer.json()["detail"]) == (502, True)


def test_prefixes_of_the_settings(web, pacs, body, monkeypatch):
    for kind in ("WADO", "QIDO", "STOW"):
        monkeypatch.setattr(settings, f"MONAI_LABEL_{kind}_PREFIX", kind.lower())
    web.get("/proxy/dicom/qido/studies")
    web.get("/proxy/dicom/qido/studies/1.2/metadata")
    web.get("/proxy/dicom/studies")
    web.post("/proxy/dicom/wado/studies", content=body, headers=HEADERS)
    asked = [request.split("dicom-web/")[1] for request in pacs.store.requests if "series" not in request]
    assert asked[:4] == ["qido/studies", "wado/studies/1.2/metadata", "studies", "stow/studies"]


def test_without_a_store_there_is_no_proxy(serve):
    for method in ("GET", "POST"):
        answer = serve(routes, checks=Checks(None, None)).request(method, "/proxy/dicom/qido/studies")
        assert (answer.status_code, "a folder" in answer.json()["detail"]) == (404, True)
