import numpy as np
import pydicom
import pytest
import requests

from sample_study import orthanc
from sample_study.dicom import write_series
from sample_study.orthanc import Orthanc, OrthancMissingError, find_orthanc

needs_orthanc = pytest.mark.skipif(find_orthanc() is None, reason="Orthanc with DICOMweb is not installed")


@needs_orthanc
def test_what_is_stored_is_served_over_dicomweb_and_survives_a_restart(tmp_path):
    image = np.arange(60).reshape(5, 4, 3)
    series = write_series(tmp_path / "dicom", image, np.eye(4))
    with Orthanc(tmp_path / "orthanc") as pacs:
        pacs.store(tmp_path / "dicom")
        pacs.store(tmp_path / "dicom")
        assert pacs.series() == [series.series_uid]
    with pytest.raises(requests.ConnectionError):
        requests.get(pacs.url, timeout=5)
    with Orthanc(tmp_path / "orthanc") as pacs:
        found = requests.get(f"{pacs.dicomweb_url}/studies/{series.study_uid}/series", timeout=5).json()
        # The address that others follow holds the port.
        assert found[0]["00081190"]["Value"][0].startswith(f"{pacs.dicomweb_url}/studies/")
        assert found[0]["0020000E"]["Value"] == [series.series_uid]
    kept = [path for path in (tmp_path / "orthanc" / "storage").rglob("*") if path.is_file()]
    assert sum(pydicom.misc.is_dicom(path) for path in kept) == 3


@needs_orthanc
def test_a_port_that_is_taken_is_an_error_with_orthancs_own_words(tmp_path):
    with Orthanc(tmp_path / "first") as pacs:
        with pytest.raises(RuntimeError, match=rf"port {pacs.port}(?s:.)*port"):
            Orthanc(tmp_path / "second", pacs.port).start()
        assert pacs.series() == []


def test_where_orthanc_is_absent_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(orthanc, "PLUGIN_FOLDERS", (tmp_path,))
    assert find_orthanc() is None
    with pytest.raises(OrthancMissingError, match="apt-get install orthanc orthanc-dicomweb"):
        Orthanc(tmp_path)
