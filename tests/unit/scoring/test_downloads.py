"""Which images of a DICOM store are downloaded to be scored, and which are not asked for."""

from __future__ import annotations

import pytest

from lib.scoring.downloads import TRIES
from lib.scoring.uncertainty import UncertaintyScoring
from tests.unit.scoring.conftest import SETTINGS

QUICK = {"slices": 1, "jitters": 0}


@pytest.fixture
def scoring(engines) -> UncertaintyScoring:
    return UncertaintyScoring(SETTINGS, engines)


class Remote:
    """A datastore whose images have to be downloaded first; some cannot be."""

    def __init__(self, datastore, here, broken):
        self._store, self.here, self._broken, self.asked = datastore, set(here), set(broken), 0

    def __getattr__(self, name):
        return getattr(self._store, name)

    def is_here(self, image_id):
        return image_id in self.here

    def get_image_uri(self, image_id):
        if image_id not in self.here:
            self.asked += 1
            if image_id in self._broken:
                raise RuntimeError("the store does not give it")
            self.here.add(image_id)
        return self._store.get_image_uri(image_id)


@pytest.fixture
def many(datastore, studies):
    """Beside the three images, nine that are broken: by name they come first."""
    for number in range(9):
        (studies / f"away{number}.nii.gz").write_bytes(b"")
    datastore.refresh()
    return datastore


def test_images_that_cannot_be_downloaded_do_not_keep_others_from_it(scoring, many):
    remote = Remote(many, (), [f"away{number}" for number in range(9)])
    summary = scoring({**QUICK, "downloads": 3}, remote)
    assert (summary["scored"], summary["unchanged"]) == (3, 0)
    assert remote.here == {"case0", "case1", "case2"}
    assert "does not give it" in next(iter(summary["failed"].values()))


def test_of_those_that_can_be_downloaded_few_are(scoring, datastore):
    remote = Remote(datastore, ["case1"], ())
    assert scoring({**QUICK, "downloads": 1}, remote)["scored"] == 2
    assert len(remote.here) == 2
    assert scoring({**QUICK, "downloads": 0}, remote)["unchanged"] == 2


def test_a_store_that_is_away_is_not_asked_for_everything_and_each_time_for_others(scoring, many):
    remote = Remote(many, (), [f"away{number}" for number in range(9)])
    for _ in range(200):
        remote.asked = 0
        scoring({**QUICK, "downloads": 1}, remote)
        assert remote.asked <= TRIES
        if remote.here == {"case0", "case1", "case2"}:
            return
    pytest.fail("an image that can be downloaded was never asked for")
