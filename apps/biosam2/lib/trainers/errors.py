"""What can go wrong in a training, in words for a person."""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch

from lib.errors import BioSam2Error, TrainingError


@contextlib.contextmanager
def plain_errors(scratch: Path) -> Iterator[None]:
    """Whatever can go wrong, as a ``TrainingError`` with a reason that a person can act on.

    Args:
        scratch: a folder that can be made again; deleted where the disk is full.
    """
    try:
        yield
    except TrainingError:
        raise
    except BioSam2Error as error:
        raise TrainingError(str(error)) from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            shutil.rmtree(scratch, ignore_errors=True)
            raise TrainingError(
                "the disk is full: nothing was published and nothing is lost; free some space and train again"
            ) from error
        raise
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise TrainingError(
            "out of memory: choose a smaller image_size or batch_size, preset decoder, or another device"
        ) from error
