"""A server on a store of DICOM series."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sample_study.orthanc import Orthanc
from tests.support.server import Server, copy_model_folder

# In another order than OHIF sorts them in: what a model calls 1 is not what the overlay calls 1.
LABELS = "tumour,organ,lesion"


@contextmanager
def serving(pacs: Orthanc, workdir: Path, labels: str = LABELS) -> Iterator[Server]:
    """A server while the block runs."""
    conf = {"labels": labels, "model_dir": str(copy_model_folder(workdir / "model"))}
    server = Server(pacs.dicomweb_url, workdir, conf)
    yield server.start()
    server.stop()


@contextmanager
def serving_alone(folders: Iterable[Path], workdir: Path, labels: str = LABELS) -> Iterator[Server]:
    """A server while the block runs, on a store of its own that holds the series in some folders."""
    with Orthanc(workdir / "orthanc") as pacs:
        pacs.store(*folders)
        with serving(pacs, workdir, labels) as server:
            yield server
