"""Label files of viewers, on the grid of their images."""

from lib.labels.label_map import LabelMap
from lib.labels.reading import read_labels

__all__ = ["LabelMap", "read_labels"]
