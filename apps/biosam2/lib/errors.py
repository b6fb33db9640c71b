"""Every error that the library raises on purpose.

The text of each is meant for a person in front of a viewer: it names the value, the limit and the remedy.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

# Exit codes of the commands: for what cannot be done as asked; after Ctrl-C, as in a shell.
REFUSED, INTERRUPTED = 2, 130


def exit_code(command: Callable[[], int]) -> int:
    """Runs a command that goes on where it was stopped, and says on stderr in one line why it ended early.

    Args:
        command: Command; it returns its exit code.

    Returns:
        That code, ``REFUSED`` after an error of this app, or ``INTERRUPTED``.
    """
    try:
        return command()
    except BioSam2Error as error:
        sys.stderr.write(" ".join(str(error).split()) + "\n")
        return REFUSED
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted; the same command resumes.\n")
        return INTERRUPTED


class BioSam2Error(Exception):
    """Base of all errors below."""


class PromptError(BioSam2Error):
    """The request's prompts or options cannot be used."""


class ImageError(BioSam2Error):
    """The image exists and cannot be used: corrupt, of an unknown kind, 4-D, or with NaN."""


class ImageTooLargeError(ImageError):
    """The image has more voxels than the server is set to open."""


class ImageNotFoundError(ImageError):
    """There is no such image."""


class CheckpointError(BioSam2Error):
    """Weights are absent, damaged, or of another network."""


class SettingsError(BioSam2Error):
    """One or more ``--conf`` options have a value that is not allowed."""


class DeviceError(BioSam2Error):
    """The device that was asked for does not exist here."""


class BusyError(BioSam2Error):
    """The server has no room for the request now; it can be sent again later."""


class Cancelled(BioSam2Error):
    """The result is not needed any more: the client is gone, or somebody stopped the run."""


class LabelError(BioSam2Error):
    """A label file cannot be used with its image."""


class ConflictError(BioSam2Error):
    """What is stored has changed since the client read it."""


class TrainingError(BioSam2Error):
    """A training cannot start or go on."""


class EvaluationError(BioSam2Error):
    """An evaluation cannot start or go on."""


class InfoError(BioSam2Error):
    """What a client says about an image or a label cannot be saved as JSON."""


class StorageFullError(BioSam2Error):
    """The disk is full, or the user's quota is reached."""


class ReadOnlyError(BioSam2Error):
    """The studies or another folder of the server cannot be written."""
