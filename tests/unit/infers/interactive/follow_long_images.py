"""Follows a square through a short video, a long one and a volume; prints the peak of memory after each."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import av
import nibabel as nib
import numpy as np
import torch
from monailabel.interfaces.tasks.infer_v2 import InferType

from lib.engine.memory import MemoryBank
from lib.engine.predictor import FrameMask
from lib.images import video
from lib.images.cache import ImageCache
from lib.infers.interactive import VideoTask, VolumeTask
from lib.infers.task import Services
from lib.settings import Settings

WIDTH, HEIGHT = 160, 120
video.KEPT_BYTES = 4 << 20


class Threshold:
    """A predictor that finds what is bright."""

    name, key, image_size = "threshold", "threshold", 128

    def new_bank(self, policy):
        return MemoryBank(16, policy)

    def segment(self, frames, index, prompts, bank=None):
        if bank is not None:
            bank.add_prompted(index, {"logits": torch.ones(1)})
        return self._found(frames, index)

    def track(self, frames, index, bank, reverse, prompts=None):
        bank.add_tracked(index, {"logits": torch.ones(1, 64, 64, 64)})
        return self._found(frames, index)

    def _found(self, frames, index):
        mask = frames[index][..., 0] > 128
        return FrameMask(mask, 0.9, 1.0)


def corner(t):
    return t % (WIDTH - 30)


def write_clip(path, frames):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for t in range(frames):
            pixels = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
            pixels[40:70, corner(t) : corner(t) + 30] = 220
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))


def write_volume(path, slices):
    array = np.full((WIDTH // 2, HEIGHT // 2, slices), 40, np.uint8)
    array[20:40, 20:40] = 220
    nib.save(nib.Nifti1Image(array, np.eye(4)), str(path))


def follow(task, services, path, point, count):
    found = task(services, InferType.DEEPGROW, 3, "volume", [], "")
    answer, params = found(
        {"image": str(path), "foreground": [point], "device": "cpu", "result_extension": ".nii"}
    )
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) * 1024 / 1e6
    assert len(params["slice_scores"]["object"]) == count
    labels = nib.load(answer).dataobj
    assert labels.shape[2] == count
    assert np.asarray(labels[..., :: count // 20]).any(axis=(0, 1)).all()
    Path(answer).unlink()
    return peak


def main():
    folder = Path(sys.argv[1])
    weights = SimpleNamespace(version=None)
    prefetcher = SimpleNamespace(give_way=lambda frames, indices: None)
    engines = SimpleNamespace(served=lambda device: (Threshold(), weights), prefetcher=prefetcher)
    services = Services(Settings(), engines, ImageCache(64 << 20, 1 << 30), ())
    write_clip(folder / "short.avi", 200)
    write_clip(folder / "long.avi", 2000)
    write_volume(folder / "volume.nii.gz", 1000)
    inside = [corner(1000) + 15, 55, 1000]
    peaks = {
        "200 frames": follow(VideoTask, services, folder / "short.avi", [15, 55, 0], 200),
        "2000 frames": follow(VideoTask, services, folder / "long.avi", inside, 2000),
        "1000 slices": follow(VolumeTask, services, folder / "volume.nii.gz", [30, 30, 500], 1000),
        "frames_mb": WIDTH * HEIGHT * 3 * 2000 / 1e6,
    }
    sys.stdout.write(json.dumps(peaks))


if __name__ == "__main__":
    main()
