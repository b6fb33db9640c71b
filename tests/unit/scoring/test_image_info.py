import pytest
from monailabel.interfaces.exception import ImageNotFoundException

from lib.scoring.image_info import read_info, write_info


def test_facts_are_written_once_and_beside_the_others(datastore, monkeypatch):
    datastore.update_image_info("case0", {"strategy": {"random": {"ts": 1}}})
    assert write_info(datastore, "case0", {"score": {"a": (1, 2)}})
    assert read_info(datastore, "case0")["score"] == {"a": [1, 2]}
    assert read_info(datastore, "case0")["strategy"] == {"random": {"ts": 1}}
    assert not write_info(datastore, "case0", {"score": {"a": [1, 2]}})
    assert write_info(datastore, "case0", {"score": {"a": [1, 3]}})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"deep": [float("nan")]}])
def test_what_would_break_a_client_is_refused(datastore, value):
    with pytest.raises(ValueError, match="JSON"):
        write_info(datastore, "case0", {"score": value})
    assert "score" not in read_info(datastore, "case0")


def test_an_image_that_has_gone_is_left_alone(datastore):
    assert not write_info(datastore, "gone", {"score": 1})
    assert read_info(datastore, "gone") == {}


def test_a_datastore_that_keeps_no_infos_is_left_alone():
    class Remote:
        def get_image_info(self, image_id):
            raise ImageNotFoundException(image_id)

        def update_image_info(self, image_id, info):
            raise NotImplementedError

    assert not write_info(Remote(), "x", {"score": 1})
