"""Clips of one series on a real PACS: each is an image under its own UID."""

from __future__ import annotations

import numpy as np
import requests

from sample_study.orthanc import Orthanc
from tests.server.test_dicomweb_odd_series import INFO, OBJECTS, write_two_clips
from tests.support.client import Client
from tests.support.phantoms import dice
from tests.support.server import Server
from tests.viewers.segmentations import LIMIT_S, stored

GOOD = 0.9
SHAPE = (120, 100)


def test_a_click_on_the_second_clip_segments_the_second_clip(pacs: Orthanc, server: Server, tmp_path) -> None:
    whole, clips = write_two_clips(tmp_path)
    pacs.store(tmp_path)
    client = Client(server.url)
    refused = client.infer("biosam2_point", whole, {"foreground": [[5, 5, 0]]})
    assert refused.status == 422
    assert all(clip in refused.detail for clip in clips)
    for clip, (columns, rows) in list(zip(clips, OBJECTS, strict=True))[::-1]:
        truth = np.zeros(SHAPE, bool)
        truth[columns, rows] = True
        click = [int(columns.start + columns.stop) // 2, int(rows.start + rows.stop) // 2, 1]
        answer = client.infer("biosam2_point", clip, {"foreground": [click]})
        assert answer.status == 200, answer.body
        assert dice(answer.mask[:, :, 1] > 0, truth) >= GOOD
        before = stored(pacs, whole)
        saved = requests.put(
            f"{server.url}/datastore/label",
            params={"image": clip, "tag": "final"},
            files={"label": (answer.file.filename, answer.file.content), "params": (None, INFO)},
            timeout=LIMIT_S,
        )
        assert saved.status_code == 200, saved.text
        after = stored(pacs, whole)
        (uid,) = set(after) - set(before)
        segmentation = after[uid]
        text = str(segmentation.dataset.ReferencedSeriesSequence)
        assert clip in text
        assert not any(other in text for other in clips if other != clip)
        # On the frame that was clicked, and on no other.
        (frame,) = segmentation.dataset.pixel_array.reshape(-1, *SHAPE[::-1])
        assert np.array_equal(frame.T > 0, answer.mask[:, :, 1] > 0)
