"""The batches of a training, one made in the background while the network learns from the one before."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from lib.trainers import distributed
from lib.trainers.options import TrainOptions
from lib.trainers.sampler import Batch, Sampler


class Batches:
    """Batches by number, each ready when it is asked for if they are asked for in order.

    Args:
        sampler: draws them.
        options: of the training.
    """

    def __init__(self, sampler: Sampler, options: TrainOptions):
        self._sampler = sampler
        self._options = options
        self._worker = ThreadPoolExecutor(1, "batches")
        self._ahead: tuple[int, Future[Batch]] | None = None

    def next(self, number: int) -> Batch:
        """Batch ``number``; the one that this process will want after it is begun."""
        if self._ahead is not None and self._ahead[0] == number:
            batch = self._ahead[1].result()
        else:
            batch = self._make(number)
        after = number + distributed.world()
        self._ahead = after, self._worker.submit(self._make, after)
        return batch

    def _make(self, number: int) -> Batch:
        batch = self._draw(number)
        # What takes time is done here and now, in the background thread.
        _ = batch.masks
        if self._options.preset != "decoder":
            _ = batch.images
        return batch

    def _draw(self, number: int) -> Batch:
        """Single frames, or clips that hold about as many frames."""
        options = self._options
        # All processes of a training take clips in the same steps.
        step = number // distributed.world()
        drawn = np.random.default_rng([options.seed, 3, step]).random()
        share = 1.0 if options.preset == "video" else options.clip_share
        if not self._sampler.labelled_in_volumes or drawn >= share:
            return self._sampler.batch(number, options.batch_size)
        rows = options.batch_size if options.preset == "video" else options.batch_size // options.clip_frames
        return self._sampler.batch(number, max(1, rows), options.clip_frames)
