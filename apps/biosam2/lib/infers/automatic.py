"""``biosam2_auto``: segments without a prompt, from the labels that people have made on other images."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from monailabel.interfaces.tasks.infer_v2 import InferType

from lib.engine.auto_head import AUTO_HEAD, HEAD_FILE, ONE_PROMPT, HeadSegmenter, load_head
from lib.engine.one_prompt import OnePrompt
from lib.engine.predictor import Predictor
from lib.errors import PromptError
from lib.images.cache import file_stamp
from lib.images.writing import write_mask
from lib.infers.interactive import SliceMerger, cleaned_labels
from lib.infers.label_merging import MOST_VALUES
from lib.infers.task import ImageTask, Services, Stopwatch, answer_extension
from lib.infers.templates import NO_LABEL, Templates
from lib.labels.labelled_slices import AXIS
from lib.prompts.fields import shown
from lib.transforms.frames import FrameStack

logger = logging.getLogger(__name__)

NAME = "biosam2_auto"
# Tag of the labels that a batch makes, unless the request names one.
AUTO_TAG = "auto"
# Heads in memory: that in service, on two devices.
_HEADS_KEPT = 2


class AutoTask(ImageTask):
    """Segments every label of the datastore on another image.

    Args:
        services: Parts that the tasks share.
        templates: Labels of the datastore.
    """

    def __init__(self, services: Services, templates: Templates):
        description = "Any image without a prompt, from the labels that people have made on other images"
        super().__init__(services, InferType.SEGMENTATION, 3, {}, description)
        self._templates = templates
        self._read_head = lru_cache(_HEADS_KEPT)(
            lambda path, stamp, device: load_head(path).to(device)  # a file of another stamp is read anew
        )

    def info(self) -> dict[str, Any]:
        """What ``/info/`` shows: the labels of ``--conf labels`` and of the datastore, by value."""
        return {**super().info(), "labels": self._values()}

    def __call__(self, request: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Segments an image.

        Args:
            request: ``image``, its path; ``labels``, names of those wanted, all where absent; ``window``,
                ``result_extension``, ``result_compress``, ``largest_component``, ``fill_holes``, ``device``.

        Returns:
            Path of the label map's file, and the answer's ``params``.

        Raises:
            BioSam2Error: The request cannot be answered; the message says why.
        """
        watch = Stopwatch()
        request = self.completed(request)
        values = self._wanted(request)
        image = self.opened(request["image"])
        extension, window = answer_extension(request, image), image.window(request.get("window"))
        frames = FrameStack(image.array, AXIS, window, image.digest)
        predictor, weights = self._services.engines.served(request["device"])
        watch.lap("pre")
        found = SliceMerger(image.shape, AXIS, self.calibration(weights.version))
        facts = self._segment(frames, values, predictor, weights.version, found)
        if not facts["ways"]:
            raise PromptError(NO_LABEL)
        watch.lap("infer")
        labels = cleaned_labels(found.labels, request, {})
        names = {name: values[name] for name in facts["ways"]}
        scores = {name: _score(found, value) for name, value in names.items()}
        path = write_mask(labels, image, extension, request["result_compress"], names)
        watch.lap("post")
        return str(path), {
            "label_names": names,
            "score": min(scores.values()),
            "scores": scores,
            **found.facts(names, {}),
            **facts,
            "model": predictor.name,
            "window": [window.low, window.high],
            "latencies": watch.latencies,
        }

    def _segment(
        self,
        frames: FrameStack,
        values: Mapping[str, int],
        predictor: Predictor,
        version: str | None,
        found: SliceMerger,
    ) -> dict[str, dict[str, Any]]:
        """Finds the labels that can be segmented; the way and the number of templates of each by name."""
        heads = self._heads(version, predictor)
        ways: dict[str, str] = {}
        counts: dict[str, int] = {}
        for name, value in values.items():
            segmenter: HeadSegmenter | OnePrompt | None = heads.get(name)
            ways[name] = AUTO_HEAD
            if segmenter is None:
                ways[name] = ONE_PROMPT
                segmenter, counts[name] = self._templates.one_prompt(predictor, name, frames.digest)
            if segmenter is None:
                del ways[name], counts[name]
                continue
            for index, result in segmenter.segment(frames):
                found.add(value, index, result)
            logger.info("%s: %s by %s, %d of %d labels", NAME, name, ways[name], len(ways), len(values))
        return {"ways": ways, "templates": counts}

    def _values(self) -> dict[str, int]:
        """Value by label name: those of ``--conf labels`` first, then the datastore's others by name."""
        names = dict.fromkeys([*self._services.labels, *self._templates.names()])
        return {name: value for value, name in enumerate(names, start=1) if value <= MOST_VALUES}

    def _wanted(self, request: Mapping[str, Any]) -> dict[str, int]:
        values = self._values()
        asked = request.get("labels") or list(values)
        if not isinstance(asked, list) or any(name not in values for name in map(str, asked)):
            raise PromptError(
                f"labels is {shown(asked)}; it must be a list of labels of the datastore "
                f"({', '.join(values) or 'there is none yet'})"
            )
        return {name: values[name] for name in values if name in asked}

    def _heads(self, version: str | None, predictor: Predictor) -> dict[str, HeadSegmenter]:
        """Segmenters of the labels for which the head of a version is the better way."""
        path = self._services.engines.versions.folder(version or "") / HEAD_FILE
        if not path.is_file():
            return {}
        head = self._read_head(path, file_stamp(path), predictor.runtime.device)
        return {name: HeadSegmenter(predictor, head, name) for name in head.better}


def _score(found: SliceMerger, value: int) -> float:
    """Confidence of a label; of one that was not found, that it is absent from every slice."""
    score = found.score(value)
    return min(found.confidence[value].values(), default=1.0) if score is None else score
