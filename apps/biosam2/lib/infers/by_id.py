"""Images are named by their ids: a file or folder of that name beside the server is none of them.

MONAI Label takes an id for a path wherever there is such a file in the server's working folder, as for an
image ``demo`` where the server was started in this project's folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monailabel.interfaces.datastore import Datastore

# No file has this name, so MONAI Label asks the datastore.
_NO_PATH = "\0"


class OneImage:
    """What MONAI Label asks of a datastore while it segments, for one image.

    Args:
        datastore: of the image.
        image_id: which.
    """

    def __init__(self, datastore: Datastore, image_id: str):
        self._datastore = datastore
        self._image_id = image_id

    def get_image_uri(self, image_id: str) -> Any:
        """The image's path, whatever it is called."""
        return self._datastore.get_image_uri(self._image_id)

    def save_label(self, image_id: str, *label: Any) -> Any:
        """Saves the answer as the image's label."""
        return self._datastore.save_label(self._image_id, *label)


def by_id(request: Mapping[str, Any], datastore: Datastore) -> tuple[dict[str, Any], Datastore | OneImage]:
    """The request and the datastore as MONAI Label's ``infer`` needs them.

    Args:
        request: with an image's id, or with the absolute path of a file that a client sent.
        datastore: of the images.
    """
    image = request["image"]
    if not isinstance(image, str) or Path(image).is_absolute():
        return dict(request), datastore
    return {**request, "image": _NO_PATH}, OneImage(datastore, image)
