"""Clients at the same time get what they would get one after another."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support import studies
from tests.support.client import Client

# Image id and object: volumes of four different shapes and contents.
VOLUMES = (("ct", "lesion"), ("ct_nrrd", "organ"), ("lung", "nodule"), ("mr", "tumour"))
PICTURES = (("grey", "cell"), ("colour", "nucleus"), ("tiny", "cell"), ("colour", "other"))
ROUNDS = 3


def _ask(client: Client, model: str, image: str, name: str) -> bytes:
    prompts = {"foreground": [studies.phantom(image).click(name)], "background": []}
    if image not in ("grey", "colour", "tiny"):
        prompts |= {"result_extension": ".nrrd", "result_compress": False}
    return client.segment(model, image, prompts, query={"output": "image"}).body


@pytest.mark.parametrize(
    ("model", "images", "rounds"),
    [
        ("biosam2_point", VOLUMES, ROUNDS),
        ("biosam2_point", PICTURES, ROUNDS),
        ("biosam2_propagate", VOLUMES, 1),
    ],
    ids=["point-volumes", "point-pictures", "propagate-volumes"],
)
def test_four_clients_on_four_images(
    client: Client, model: str, images: tuple[tuple[str, str], ...], rounds: int
) -> None:
    alone = [_ask(client, model, image, name) for image, name in images]
    assert len(set(alone)) == len(images), "the four masks differ, so a mix-up would show"
    with ThreadPoolExecutor(len(images)) as pool:
        for _ in range(rounds):
            together = list(pool.map(lambda pair: _ask(client, model, *pair), images))
            assert together == alone


def test_clicks_while_a_propagation_runs(client: Client) -> None:
    click = _ask(client, "biosam2_point", "mr", "tumour")
    volume = _ask(client, "biosam2_propagate", "ct", "lesion")
    with ThreadPoolExecutor(4) as pool:
        running = pool.submit(_ask, client, "biosam2_propagate", "ct", "lesion")
        clicks = list(pool.map(lambda _: _ask(client, "biosam2_point", "mr", "tumour"), range(3)))
        assert running.result() == volume
    assert clicks == [click] * 3
