"""What the methods that look at people's labels have in common: one label after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from monailabel.interfaces.datastore import Datastore

from lib.scoring.fingerprints import LabelEntry, labelled
from lib.scoring.image_info import write_info
from lib.scoring.progress import UNUSABLE, Progress

Facts = Mapping[str, Any]


def visit_labelled(
    datastore: Datastore,
    progress: Progress,
    look: Callable[[str, LabelEntry], Facts | None],
    words: Callable[[Facts], str],
) -> list[str]:
    """Writes into each labelled image's info what is new of its final label.

    Args:
        datastore: of the images.
        progress: of the run.
        look: what the info of an image is to say; None where it says so already.
        words: of that, for people.

    Returns:
        Ids of all labelled images, those too that were not visited.
    """
    entries = dict(labelled(datastore))
    for number, image_id in enumerate(progress.over(entries)):
        try:
            told = look(image_id, entries[image_id])
        except UNUSABLE as error:
            progress.failure(image_id, error)
            continue
        if told is None:
            progress.unchanged += 1
            continue
        write_info(datastore, image_id, told)
        progress.scored(image_id, words(told), len(entries) - number - 1)
    return list(entries)
