import numpy as np
import pytest

from lib.prompts.types import FramePrompts
from lib.scoring.signals.grid import GridSource
from lib.scoring.signals.nearest_labelled import LabelledSlice, NearestLabelSource
from lib.scoring.signals.prompt_sources import PromptSource, Suggestion

SLICE = LabelledSlice("d", 0, np.zeros((8, 8, 3), np.uint8), {"a": np.ones((8, 8), bool)})


@pytest.mark.parametrize("source", [GridSource(), NearestLabelSource([SLICE])])
def test_every_source_suggests_boxes_and_the_same_ones_again(source: PromptSource, predictor, body):
    _image, frames, _ = body
    first, again = (source.suggest(predictor, frames, 4) for _ in range(2))
    assert [item.label for item in first] == [item.label for item in again]
    for item, other in zip(first, again, strict=True):
        assert isinstance(item, Suggestion)
        assert (item.prompts is None) == (other.prompts is None)
        if isinstance(item.prompts, FramePrompts):
            assert item.prompts.box is not None
            assert len(item.prompts.points) == 0
            np.testing.assert_array_equal(item.prompts.box, other.prompts.box)


def test_sources_that_differ_have_names_that_differ():
    sources = [GridSource(), GridSource(side=3), GridSource(most=1), NearestLabelSource([SLICE])]
    assert len({source.name for source in sources}) == 4
