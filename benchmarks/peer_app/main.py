"""MONAI Label's own SAM 2 tasks with a given checkpoint on the CPU: the peer of the speed benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from monailabel.config import settings
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType


class PeerApp(MONAILabelApp):
    """Registers ``sam_2d`` and ``sam_3d`` as MONAI Label's radiology app does.

    Conf options: ``checkpoint`` (weights) and ``config`` (its YAML, in the same folder). Both must exist, so
    that the tasks find nothing to download.
    """

    def __init__(self, app_dir: str, studies: str, conf: Mapping[str, str]) -> None:
        self._checkpoint = Path(conf["checkpoint"]).resolve()
        self._config = Path(conf["config"]).resolve()
        for path in (self._checkpoint, self._config):
            if not path.is_file():
                raise FileNotFoundError(f"{path} is not there: the peer would try to download it")
        super().__init__(app_dir=app_dir, studies=studies, conf=conf, name="MONAI Label's SAM 2 tasks")

    def init_infers(self) -> dict[str, InferTask]:
        """The two tasks, both on the same file."""
        settings.MONAI_SAM_MODEL_PT = self._checkpoint.name
        settings.MONAI_SAM_MODEL_CFG = self._config.name
        from monailabel.sam2.infer import Sam2InferTask

        folder = str(self._checkpoint.parent)
        return {
            "sam_2d": Sam2InferTask(model_dir=folder, type=InferType.DEEPGROW, dimension=2),
            "sam_3d": Sam2InferTask(model_dir=folder, type=InferType.DEEPGROW, dimension=3),
        }
