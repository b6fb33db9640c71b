"""JSON of clients, of which what cannot be stored and sent back is refused; and files as answers."""

from __future__ import annotations

import pytest
from fastapi import APIRouter, HTTPException
from fastapi.responses import FileResponse

from lib.server.routing import MAX_DEPTH, JsonBody, file_response, json_object

REFUSED = {
    "{": "not valid JSON",
    "[1]": "must be a JSON object, not a list",
    "null": "not a NoneType",
    "3": "not a int",
    '{"a": NaN}': "NaN or an infinite",
    '{"a": [1e999]}': "NaN or an infinite",
    '{"a": -Infinity}': "NaN or an infinite",
    '{"a": "\\ud83d"}': "half a character",
    '{"\\udc00": 1}': "half a character",
    '{"a":' * 200 + "1" + "}" * 200: "deeper than 32",
    '{"a":' + "[" * 100_000: "nested deeper|not valid JSON",
    '{"a": ' + "9" * 5000 + "}": "not valid JSON",
}


def test_an_object_or_nothing_passes() -> None:
    assert json_object('{"a": [1.5, "\\ud83d\\ude00", null]}', "params") == {"a": [1.5, "\U0001f600", None]}
    assert json_object("", "params") == json_object(b" ", "params") == {}
    deep = '{"a":' + "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1) + "}"
    assert json_object(deep, "params")["a"]


def test_everything_else_is_refused_with_a_reason() -> None:
    for text, reason in REFUSED.items():
        with pytest.raises(HTTPException, match=reason) as caught:
            json_object(text, "params")
        assert caught.value.status_code == 400, text[:40]
        assert "params" in caught.value.detail


def test_a_body_needs_no_content_type(serve) -> None:
    router = APIRouter()

    @router.post("/")
    def answer(body: JsonBody) -> dict:
        return {"got": body}

    client = serve(router)
    assert client.post("/", content=b'{"a": 1}').json() == {"got": {"a": 1}}
    for empty in (b"", b"null"):
        assert client.post("/", content=empty).json() == {"got": {}}
    for text in REFUSED:
        if text != "null":
            answered = client.post("/", content=text.encode(), headers={"content-type": "application/json"})
            assert answered.status_code == 400, text[:40]
    assert client.post("/", content=b" " * (17 << 20)).status_code == 413
    # In chunks, without a length.
    assert client.post("/", content=iter([b" " * (1 << 20)] * 17)).status_code == 413


def test_a_temporary_file_is_deleted_whatever_range_is_asked_for(serve, tmp_path) -> None:
    router, path = APIRouter(), tmp_path / "made.zip"

    @router.get("/")
    def answer() -> FileResponse:
        path.write_bytes(b"0123456789")
        return file_response(path, temporary=True)

    client = serve(router)
    for asked, status, content in (
        ({}, 200, b"0123456789"),
        ({"range": "bytes=2-4"}, 206, b"234"),
        ({"range": "bytes=99-"}, 416, None),
        ({"range": "lines=1"}, 400, None),
    ):
        answered = client.get("/", headers=asked)
        assert (answered.status_code, path.exists()) == (status, False), asked
        assert content in (None, answered.content)
