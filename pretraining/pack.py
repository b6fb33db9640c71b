"""Pack what trains of data folders into one file: `python -m pretraining.pack --real DATA OUT.npz`.

For a machine that data must be carried to. `python -m pretraining.train --real OUT.npz` reads it; items that
are held out or may not train are not in it.
"""

from __future__ import annotations

import argparse
import io
import json
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from pretraining.real import RealStack, load_stacks

LONGEST_SIDE = 288


def pack(stacks: Iterable[RealStack], path: Path, longest: int = LONGEST_SIDE) -> None:
    """Write stacks, no slice longer than `longest` pixels, with LZMA."""
    index = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as file:
        for number, stack in enumerate(stacks):
            index.append({"name": stack.name, "kind": stack.kind})
            for field in ("pictures", "labels", "pieces"):
                array = _shrunk(getattr(stack, field), longest, smooth=field == "pictures")
                _write(file, f"{number}.{field}.npy", array)
        _write(file, "index.npy", np.frombuffer(json.dumps(index).encode(), dtype=np.uint8))


def _write(file: zipfile.ZipFile, name: str, array: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array))
    file.writestr(name, buffer.getvalue())


def _shrunk(array: np.ndarray, longest: int, smooth: bool) -> np.ndarray:
    """The slices (T, H, W[, 3]) with sides of at most `longest` pixels."""
    scale = longest / max(array.shape[1:3])
    if scale >= 1:
        return array
    sides = [round(side * scale) for side in array.shape[1:3]]
    planes = torch.tensor(array.astype(np.float32)).reshape(*array.shape[:3], -1).permute(0, 3, 1, 2)
    if smooth:
        small = F.interpolate(planes, sides, mode="bilinear", antialias=True)
    else:
        small = F.interpolate(planes, sides, mode="nearest-exact")
    return small.permute(0, 2, 3, 1).reshape(-1, *sides, *array.shape[3:]).round().numpy().astype(array.dtype)


def main() -> None:
    """Pack data folders."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--real", type=Path, action="append", required=True, help="data folder; may be repeated"
    )
    parser.add_argument("--longest", type=int, default=LONGEST_SIDE, help="longest side in pixels")
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    pack(load_stacks(args.real), args.out, args.longest)
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
