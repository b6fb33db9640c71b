"""JSON of clients: what cannot be stored and sent back is refused."""

from __future__ import annotations

import pytest
from fastapi import APIRouter, HTTPException

from lib.server.routing import MAX_DEPTH, JsonBody, json_object

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
