import pytest
import torch
from fastapi import HTTPException

from lib import errors
from lib.http import http_errors, json_object


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (errors.PromptError, 400),
        (errors.DeviceError, 400),
        (errors.SettingsError, 400),
        (errors.TrainingError, 400),
        (errors.EvaluationError, 400),
        (errors.LabelError, 422),
        (errors.ImageNotFoundError, 404),
        (errors.ImageTooLargeError, 413),
        (errors.ImageError, 422),
        (errors.CheckpointError, 503),
        (errors.BusyError, 503),
    ],
)
def test_every_error_of_the_library_has_a_status_and_keeps_its_reason(kind, status):
    with pytest.raises(HTTPException) as caught, http_errors():
        raise kind("the reason")
    assert (caught.value.status_code, caught.value.detail) == (status, "the reason")


def test_no_kind_of_error_was_forgotten():
    kinds = [value for value in vars(errors).values() if isinstance(value, type)]
    for kind in kinds:
        if kind is not errors.BioSam2Error:
            with pytest.raises(HTTPException), http_errors():
                raise kind("x")


@pytest.mark.parametrize("kind", [MemoryError, torch.OutOfMemoryError])
def test_out_of_memory_says_what_to_do(kind):
    with pytest.raises(HTTPException, match="embedding_cache_mb") as caught, http_errors():
        raise kind
    assert caught.value.status_code == 503


def test_a_defect_of_ours_stays_what_it_is():
    with pytest.raises(ZeroDivisionError), http_errors():
        _ = 1 / 0


def test_a_field_is_a_json_object_or_refused() -> None:
    assert json_object('{"a": 1}', "params") == {"a": 1}
    assert json_object("", "params") == {}
    for text, word in (("{", "not JSON"), ("[1]", "it is a list"), ("[" * 100_000, "not JSON")):
        with pytest.raises(HTTPException, match=word) as caught:
            json_object(text, "params")
        assert caught.value.status_code == 400
        assert "params" in caught.value.detail
