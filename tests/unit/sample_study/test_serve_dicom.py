import pydicom
import pytest

from sample_study import orthanc
from sample_study.serve_dicom import main, sample_labels, write_sample


def test_the_sample_is_a_ct_and_an_mr_of_two_patients_and_is_written_once(tmp_path):
    write_sample(tmp_path)
    folders = sorted(path.name for path in tmp_path.iterdir())
    assert folders == ["abdomen_ct", "head_mr"]
    first = [pydicom.dcmread(tmp_path / name / "slice_0000.dcm") for name in folders]
    assert [dataset.Modality for dataset in first] == ["CT", "MR"]
    assert first[0].PatientID != first[1].PatientID
    assert [float(dataset.WindowWidth) for dataset in first] == [400.0, 800.0]
    write_sample(tmp_path)
    again = pydicom.dcmread(tmp_path / "abdomen_ct" / "slice_0000.dcm")
    assert again.SOPInstanceUID == first[0].SOPInstanceUID


def test_the_labels_are_those_of_both_images_without_what_is_on_neither():
    labels = sample_labels()
    assert {"liver", "left kidney", "lesion"} <= set(labels)
    assert not any(name.startswith("cell") for name in labels)


def test_without_orthanc_it_ends_with_one_line_that_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(orthanc, "PLUGIN_FOLDERS", (tmp_path,))
    assert main(["--folder", str(tmp_path / "dicom")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "apt-get install orthanc orthanc-dicomweb" in line
    assert not (tmp_path / "dicom").exists()


def test_an_option_that_is_wrong_is_refused_before_anything_starts(tmp_path):
    with pytest.raises(SystemExit):
        main(["--folder", str(tmp_path / "dicom"), "--port", "many"])
    assert not (tmp_path / "dicom").exists()
