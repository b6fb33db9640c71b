"""A DICOMweb store in this process, with two series in it, and the server's view of it."""

from dataclasses import dataclass

import numpy as np
import pytest
from monailabel.datastore.dicom import DICOMwebClientX

from lib.datastores.dicomweb import DicomWebStore, open_session
from lib.images.reading import read_image
from lib.labels.dicom_seg_writing import describe_segments, write_dicom_seg
from sample_study.dicom import write_series
from tests.support.dicomweb_standin import DicomWebStandIn

MANY = 10**9
SHAPE = (12, 10, 6)
AFFINE = np.array([[-0.8, 0, 0, 5], [0, -0.9, 0, 6], [0, 0, 2.5, -7], [0, 0, 0, 1]])
LABEL = np.zeros(SHAPE, np.uint8)
LABEL[2:6, 3:5, 1:4], LABEL[9, 7:9, 2:5] = 1, 2


@dataclass
class Pacs:
    """A store and the folder of its series."""

    store: DicomWebStandIn
    folder: object
    ct: object
    mr: object

    def draw(self, array, names, series=None):
        """Stores a segmentation by another way than the server's; returns its header."""
        series = series or self.ct
        path = self.folder / "drawn.dcm"
        image = read_image(series.files[0].parent, MANY)
        write_dicom_seg(path, array, image, series.files, describe_segments(names))
        return self.store.add(path.read_bytes())


@pytest.fixture
def pacs(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "series"
    ct = write_series(folder / "ct", rng.integers(-50, 50, SHAPE).astype(np.int16), AFFINE)
    mr = write_series(folder / "mr", rng.integers(0, 50, SHAPE).astype(np.int16), AFFINE, modality="MR")
    with DicomWebStandIn() as store:
        store.store(folder)
        yield Pacs(store, folder, ct, mr)


@pytest.fixture
def client(pacs):
    made = DICOMwebClientX(pacs.store.dicomweb_url, session=open_session(pacs.store.dicomweb_url))
    made.set_http_retry_params(retry=False)
    return made


@pytest.fixture
def open_datastore(client, tmp_path):
    """Function that opens the store as a server does, or another of its processes."""

    def make(**options):
        return DicomWebStore(client, {}, tmp_path / "cache", MANY, **options)

    return make


@pytest.fixture
def datastore(open_datastore):
    return open_datastore()


@pytest.fixture
def label_file(tmp_path):
    """The label as the old OHIF sends it."""
    path = tmp_path / "label.bin"
    path.write_bytes(LABEL.tobytes(order="F"))
    return path
