"""Errors of the app as HTTP answers."""

from __future__ import annotations

import errno
from typing import Any

import pytest
import torch
from fastapi import APIRouter, FastAPI
from fastapi.testclient import TestClient

from lib import errors
from lib.server.error_responses import ErrorResponses

STATUS = {
    errors.PromptError: 400,
    errors.DeviceError: 400,
    errors.SettingsError: 400,
    errors.TrainingError: 400,
    errors.EvaluationError: 400,
    errors.InfoError: 400,
    errors.ReadOnlyError: 403,
    errors.StorageFullError: 507,
    errors.ConflictError: 409,
    errors.LabelError: 422,
    errors.ImageNotFoundError: 404,
    errors.ImageTooLargeError: 413,
    errors.ImageError: 422,
    errors.CheckpointError: 503,
    errors.BusyError: 503,
    errors.Cancelled: 499,
    errors.BioSam2Error: 500,
}


def answer_to(error: BaseException) -> Any:
    router = APIRouter()

    @router.get("/")
    def fail(number: int = 0) -> None:
        raise error

    server = FastAPI()
    server.include_router(router)
    ErrorResponses(["/srv/studies", "/srv"]).add_to(server)
    return TestClient(server).get("/")


def test_every_error_of_the_app_has_a_status_and_keeps_its_reason() -> None:
    named = [value for value in vars(errors).values() if isinstance(value, type)]
    kinds = {value for value in named if issubclass(value, errors.BioSam2Error)}
    assert kinds == set(STATUS)
    for kind, status in STATUS.items():
        answer = answer_to(kind("the reason"))
        assert (answer.status_code, answer.json()) == (status, {"detail": "the reason"})
        assert ("retry-after" in answer.headers) == (status == 503)


def test_out_of_memory_says_what_to_do() -> None:
    for kind in (MemoryError, torch.OutOfMemoryError):
        answer = answer_to(kind())
        assert (answer.status_code, "embedding_cache_mb" in answer.text) == (503, True)


def test_a_full_disk_and_a_read_only_folder_are_named() -> None:
    for number, status, word in (
        (errno.ENOSPC, 507, "full"),
        (errno.EROFS, 403, "writable"),
    ):
        answer = answer_to(OSError(number, "x", "/srv/studies/x"))
        assert (answer.status_code, word in answer.json()["detail"]) == (status, True)


def test_a_defect_stays_what_it_is() -> None:
    for error in (ZeroDivisionError(), FileNotFoundError(errno.ENOENT, "x")):
        with pytest.raises(type(error)):
            answer_to(error)


def test_no_answer_shows_a_path_of_the_server_or_half_a_character() -> None:
    answer = answer_to(errors.ImageError("/srv/studies/a/ct.nii.gz and /srv/x: \ud83d"))
    assert answer.json()["detail"] == "a/ct.nii.gz and x: ?"
