"""The labels of the datastore as templates of one-prompt segmentation."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable, Iterable

import numpy as np
from cachetools import LRUCache
from monailabel.interfaces.datastore import Datastore

from lib.datastores.label_entries import AUTOMATIC, LabelEntry, image_path, labelled, stamp
from lib.engine.memory import BANK_SIZE
from lib.engine.one_prompt import OnePrompt
from lib.engine.predictor import Predictor
from lib.engine.runtime import raise_if_cancelled
from lib.errors import BioSam2Error
from lib.images.cache import ImageCache
from lib.labels.labelled_slices import LabelledSlice, labelled_slices
from lib.labels.reading import read_labels
from lib.labels.values import LabelMap
from lib.transforms.sampling import evenly_spaced

logger = logging.getLogger(__name__)

# Templates that a volume gives for each label: the middle of its extent and both halves.
_PER_IMAGE = 3
# Memory of the labelled slices, in bytes; they are read again where it is not enough.
_SLICES_BYTES = 256 << 20
# Labels whose templates stay in the memory bank.
_LABELS_KEPT = 64

# Reason of a refusal.
NO_LABEL = "There is no label to learn from on another image: segment and submit one, then ask again"

_Slices = dict[str, list[LabelledSlice]]


class Templates:
    """Final labels that people made, read on demand. Safe to use from several threads.

    Args:
        datastore: Function that returns the app's datastore.
        images: Cache of opened images.
    """

    def __init__(self, datastore: Callable[[], Datastore], images: ImageCache):
        self._datastore = datastore
        self._images = images
        self._slices: LRUCache[Hashable, _Slices] = LRUCache(_SLICES_BYTES, getsizeof=_nbytes)
        self._banks: LRUCache[Hashable, OnePrompt] = LRUCache(_LABELS_KEPT)
        self._unnamed: dict[Hashable, tuple[str, ...]] = {}
        self._lock = threading.Lock()

    def names(self) -> list[str]:
        """Labels that can be segmented, sorted; those that a client did not name are read from their file."""
        found: set[str] = set()
        for image_id, entry in self._entries():
            found.update(entry.names or self._names_in_file(image_id, entry))
        return sorted(found)

    def one_prompt(self, predictor: Predictor, label: str, without: str) -> tuple[OnePrompt | None, int]:
        """A segmenter of one label with the number of its templates; None, 0 where the label has none.

        Args:
            predictor: Predictor of the request.
            label: Name of the label.
            without: Digest of the image that is segmented, which is no template of its own.
        """
        with self._lock:
            chosen = self._chosen(label)
            templates = [
                item
                for image_id, entry in chosen
                for item in self._read(image_id, entry).get(label, ())
                if item.digest != without
            ]
            if not templates:
                return None, 0
            files = tuple((stamp(entry.path), str(entry.label_info)) for _, entry in chosen)
            key = (predictor.key, label, tuple((item.digest, item.index) for item in templates), files)
            if key not in self._banks:
                self._banks[key] = OnePrompt(predictor, templates, label)
            return self._banks[key], min(len(templates), BANK_SIZE)

    def _entries(self) -> Iterable[tuple[str, LabelEntry]]:
        """Images with a final label of a person, by id."""
        return (item for item in labelled(self._datastore()) if item[1].info.get(AUTOMATIC) is not True)

    def _chosen(self, label: str) -> list[tuple[str, LabelEntry]]:
        """Images that may hold a label, evenly spaced: no more than there are places in the bank."""
        holding = [
            (image_id, entry)
            for image_id, entry in self._entries()
            if label in (entry.names or self._names_in_file(image_id, entry))
        ]
        return [holding[place] for place in evenly_spaced(len(holding), BANK_SIZE)]

    def _names_in_file(self, image_id: str, entry: LabelEntry) -> tuple[str, ...]:
        key = (image_id, stamp(entry.path))
        if key not in self._unnamed:
            self._unnamed[key] = tuple(self._read(image_id, entry))
        return self._unnamed[key]

    def _read(self, image_id: str, entry: LabelEntry) -> _Slices:
        """Templates of an image by label; none where image and label cannot be used together."""
        raise_if_cancelled()
        try:
            path = image_path(self._datastore(), image_id)
            key = (image_id, stamp(path), stamp(entry.path), str(entry.label_info))
            if (found := self._slices.get(key)) is None:
                image = self._images.get(path)
                labels = read_labels(entry.path, image, entry.label_info)
                names = dict.fromkeys(labels.names.values())
                by_name = {name: labelled_slices(image, _only(labels, name), _PER_IMAGE) for name in names}
                found = {name: slices for name, slices in by_name.items() if slices}
                if _nbytes(found) <= self._slices.maxsize:
                    self._slices[key] = found
        except BioSam2Error as error:
            logger.warning("Label of %s not used as a template: %s", image_id, error)
            return {}
        return found


def _only(labels: LabelMap, name: str) -> LabelMap:
    """A label map with one class alone."""
    values = [value for value, other in labels.names.items() if other == name]
    return LabelMap(np.where(np.isin(labels.array, values), labels.array, 0), dict.fromkeys(values, name))


def _nbytes(slices: _Slices) -> int:
    return sum(
        item.levels.nbytes + sum(mask.nbytes for mask in item.masks.values())
        for items in slices.values()
        for item in items
    )
