"""One-prompt segmentation (MedSAM-2, Zhu et al. 2024): labelled slices of other images are the memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lib.engine.frames import FrameSequence, SingleFrame
from lib.engine.likeness import Likeness
from lib.engine.memory import BANK_SIZE, confidence
from lib.engine.predictor import FrameMask, Predictor
from lib.engine.propagation import propagate
from lib.labels.labelled_slices import LabelledSlice
from lib.prompts.types import FramePrompts
from lib.settings import MemoryPolicy
from lib.transforms.sampling import evenly_spaced

# Slices of a volume that are compared with the templates, and those of them that are segmented.
MOST_SEARCHED, MOST_TRIED = 64, 4
# Frames that the network is told: as many as it looks back, so that the temporal position is a usual one.
_CLIP = 16
_ASKED = 0


class OnePrompt:
    """Segments one label on images that have no prompts.

    The templates are pinned in a memory bank. The ``confidence`` policy picks them up by the similarity of
    the embeddings; for ``fifo`` they are the frames of a video just before the image, in their order.

    Args:
        predictor: Network.
        templates: Labelled slices that hold the label; ``BANK_SIZE`` of them are used, evenly spaced.
        label: Name of the label.
        policy: Choice of the memories that are looked back at.

    Attributes:
        size: (width, height) of the first template in pixels.

    Raises:
        ValueError: There is no template.
    """

    def __init__(
        self,
        predictor: Predictor,
        templates: Sequence[LabelledSlice],
        label: str,
        policy: MemoryPolicy = "confidence",
    ):
        if not templates:
            raise ValueError(f"There is no labelled slice of {label!r}")
        self._predictor = predictor
        self._bank = predictor.new_bank(policy)
        self._bank.needs_embeddings = True
        self._bank.likeness = Likeness()
        self.size = templates[0].width, templates[0].height
        chosen = evenly_spaced(len(templates), BANK_SIZE)
        for place, number in enumerate(chosen):
            item, mask = templates[number], templates[number].masks[label]
            # The most similar template stands in for the neighbour of a frame where none is one by its index.
            index = -2 * (place + 1) if policy == "confidence" else place - len(chosen)
            predictor.segment(SingleFrame(item, 0, _CLIP), index, FramePrompts.of_mask(mask), self._bank)

    def frame(self, frames: FrameSequence, index: int) -> FrameMask:
        """Segments the label on one frame; frames of one image do not influence each other."""
        single = SingleFrame(frames, index, _CLIP)
        return self._predictor.track(single, _ASKED, self._bank.copy(), reverse=False)

    def segment(self, frames: FrameSequence) -> Iterator[tuple[int, FrameMask]]:
        """Segments the label on a picture, or through a volume: the key slice, then propagation both ways.

        Yields:
            Index and result of each slice that may hold the label.
        """
        if len(frames) == 1:
            yield 0, self.frame(frames, 0)
            return
        searched = evenly_spaced(len(frames), MOST_SEARCHED)
        similarity = {
            index: self._bank.similarity(self._predictor.features(frames, index).maps[-1])
            for index in searched
        }
        tried = sorted(searched, key=lambda index: -similarity[index])[:MOST_TRIED]
        found = {index: self.frame(frames, index) for index in tried}
        held = [index for index in tried if found[index].mask.any()]
        if not held:
            yield from found.items()
            return
        key = max(held, key=lambda index: confidence(found[index].score, found[index].presence))
        prompts = {key: FramePrompts.of_mask(found[key].mask)}
        bank = self._bank.copy()
        bank.likeness = None  # it was learned on other images
        for _, index, result in propagate(self._predictor, frames, [prompts], bank=bank):
            yield index, found[key] if index == key else result
