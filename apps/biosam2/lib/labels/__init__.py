"""Label files of viewers, on the grid of their images."""

from lib.labels.reading import read_labels
from lib.labels.values import LabelMap

__all__ = ["LabelMap", "read_labels"]
