"""A slide as a scanner writes it, with cells whose outlines are known."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, VLWholeSlideMicroscopyImageStorage, generate_uid
from scipy import ndimage
from shapely.geometry import Point, Polygon
from shapely.geometry.base import BaseGeometry

TILE = 256
# TIFF's number of the compression.
WEBP = 50001
# How a file says that an Aperio scanner made it.
APERIO = "Aperio Image Library v11.2.1\n|AppMag = 40|MPP = 0.25"
APERIO_20X = "Aperio Image Library v11.2.1\n|AppMag = 20|MPP = 0.5"
# Stains as a microscope's camera sees them: glass, eosin, haematoxylin.
GLASS, GROUND, NUCLEUS = (244, 242, 245), (233, 178, 208), (92, 62, 142)
# Half axes of a nucleus in pixels, as at 40-fold magnification.
SMALLEST, LARGEST = 11.0, 19.0
# Corners of the polygon that stands for an ellipse: less than a tenth of a pixel off.
CORNERS = 96


@dataclass(frozen=True)
class Cell:
    """An ellipse, in pixels of level 0, where the first pixel reaches from 0 to 1."""

    x: float
    y: float
    a: float
    b: float
    angle: float

    @cached_property
    def outline(self) -> Polygon:
        """The ellipse as a polygon."""
        t = np.linspace(0, 2 * math.pi, CORNERS, endpoint=False)
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        u, v = self.a * np.cos(t), self.b * np.sin(t)
        return Polygon(np.stack([self.x + u * cos - v * sin, self.y + u * sin + v * cos], axis=1))

    @property
    def click(self) -> list[int]:
        """[x, y] of the pixel in its middle, as QuPath sends it."""
        return [int(self.x), int(self.y)]


def scatter(
    width: int, height: int, count: int, seed: int, gap: float = 6.0, first: Cell | None = None
) -> list[Cell]:
    """Cells that do not touch each other or the slide's border, as many as find a place."""
    rng = np.random.default_rng(seed)
    cells = [] if first is None else [first]
    for _ in range(count * 20):
        a, b = rng.uniform(SMALLEST, LARGEST, 2)
        margin = LARGEST + gap
        cell = Cell(
            rng.uniform(margin, width - margin),
            rng.uniform(margin, height - margin),
            a,
            b,
            rng.uniform(0, 3.1),
        )
        reach = max(a, b) + gap
        if all(math.hypot(cell.x - o.x, cell.y - o.y) > reach + max(o.a, o.b) for o in cells):
            cells.append(cell)
        if len(cells) == count:
            break
    return cells


def paint(width: int, height: int, cells: list[Cell], seed: int, glass_from: int | None = None) -> NDArray:
    """uint8 (H, W, 3): dark nuclei on streaky pink; glass right of the column ``glass_from``."""
    rng = np.random.default_rng(seed)
    stain = np.zeros((height, width))
    for cell in cells:
        reach = math.ceil(max(cell.a, cell.b)) + 2
        x0, y0 = max(0, int(cell.x) - reach), max(0, int(cell.y) - reach)
        x, y = np.meshgrid(
            np.arange(x0, min(width, x0 + 2 * reach)) + 0.5, np.arange(y0, min(height, y0 + 2 * reach)) + 0.5
        )
        cos, sin = math.cos(cell.angle), math.sin(cell.angle)
        u, v = (x - cell.x) * cos + (y - cell.y) * sin, (y - cell.y) * cos - (x - cell.x) * sin
        inside = (u / cell.a) ** 2 + (v / cell.b) ** 2 <= 1
        stain[y0 : y0 + x.shape[0], x0 : x0 + x.shape[1]][inside] = rng.uniform(0.75, 1.0)
    stain = ndimage.gaussian_filter(stain, 0.8)[..., None]
    ground = np.broadcast_to(np.array(GROUND, float), (height, width, 3)).copy()
    ground += 8 * _smooth(rng, height, width)[..., None]
    if glass_from is not None:
        ground[:, glass_from:] = GLASS
    image = ground * (1 - stain) + np.array(NUCLEUS, float) * stain
    image += rng.normal(0, 4, image.shape)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def _smooth(rng: np.random.Generator, height: int, width: int) -> NDArray:
    field = ndimage.gaussian_filter(rng.normal(size=(height, width)), (5, 18), mode="wrap")
    return field / field.std()


def write_slide(path: Path, pixels: NDArray, levels: int = 3, description: str = "", **page: object) -> Path:
    """Writes (H, W, 3) as a pyramid of tiled pages, each half as large as the one before."""
    with tifffile.TiffWriter(path) as file:
        for level in range(levels):
            step = 2**level
            file.write(
                _halved(pixels, step),
                tile=(TILE, TILE),
                photometric="rgb",
                compression="zlib",
                subfiletype=int(level > 0),
                description=description if level == 0 else None,
                metadata=None,
                **page,
            )
    return path


def _halved(pixels: NDArray, step: int) -> NDArray:
    height, width = (side // step * step for side in pixels.shape[:2])
    blocks = pixels[:height, :width].reshape(height // step, step, width // step, step, 3)
    return np.rint(blocks.mean(axis=(1, 3))).astype(np.uint8)


def write_leica(path: Path, pixels: NDArray, x: int, y: int, nm: int = 250) -> Path:
    """Writes a Leica scan, whose main image begins at (x, y) of the glass; OpenSlide gives it bounds."""
    height, width = pixels.shape[:2]
    glass = (width + 2 * x) * nm, (height + 2 * y) * nm
    images = [
        ("macro", (200, 150), glass, (0, 0)),
        ("main", (width, height), (width * nm, height * nm), (x, y)),
    ]
    parts = []
    for number, (name, size, view, offset) in enumerate(images):
        parts.append(
            f'<image name="{name}" uuid="{name}"><creationDate>2020-01-01T00:00:00Z</creationDate>'
            f'<device model="Leica SCN400" version="1.4"/><pixels sizeX="{size[0]}" sizeY="{size[1]}">'
            f'<dimension sizeX="{size[0]}" sizeY="{size[1]}" r="0" ifd="{number}"/></pixels>'
            f'<view sizeX="{view[0]}" sizeY="{view[1]}" '
            f'offsetX="{offset[0] * nm}" offsetY="{offset[1] * nm}" '
            'spacingZ="0"/><scanSettings><objectiveSettings><objective>40</objective></objectiveSettings>'
            "<illuminationSettings><numericalAperture>0.75</numericalAperture><illuminationSource>brightfield"
            "</illuminationSource></illuminationSettings></scanSettings></image>"
        )
    description = (
        '<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01" uuid="u">'
        f'<collection name="c" uuid="u" sizeX="{glass[0]}" sizeY="{glass[1]}"><barcode>MTIz</barcode>'
        f"{''.join(parts)}</collection></scn>"
    )
    page = {"tile": (TILE, TILE), "photometric": "rgb", "compression": "zlib", "metadata": None}
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        file.write(np.full((150, 200, 3), 230, np.uint8), description=description, **page)
        file.write(pixels, **page)
    return path


def write_webp(path: Path, pixels: NDArray) -> Path:
    """Writes (H, W, 3) as a tiled TIFF with lossless WebP tiles, which OpenSlide cannot decode."""
    height, width = pixels.shape[:2]
    tiles = []
    for y in range(0, height, TILE):
        for x in range(0, width, TILE):
            tile = np.zeros((TILE, TILE, 3), np.uint8)
            part = pixels[y : y + TILE, x : x + TILE]
            tile[: part.shape[0], : part.shape[1]] = part
            content = io.BytesIO()
            Image.fromarray(tile).save(content, "webp", lossless=True)
            tiles.append(content.getvalue())
    with tifffile.TiffWriter(path) as file:
        file.write(
            iter(tiles),
            shape=pixels.shape,
            dtype=np.uint8,
            tile=(TILE, TILE),
            photometric="rgb",
            compression="adobe_deflate",  # the writer wants a library for WebP, and the tiles are there
            metadata=None,
        )
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages.first.tags["Compression"].overwrite(WEBP)
    return path


def write_dicom_slide(path: Path, pixels: NDArray, mpp: float = 0.25) -> Path:
    """Writes (H, W, 3) as a DICOM whole slide of one level in one file."""
    height, width = pixels.shape[:2]
    size = 128
    padded = np.full((-(-height // size) * size, -(-width // size) * size, 3), 255, np.uint8)
    padded[:height, :width] = pixels
    tiles = [
        padded[y : y + size, x : x + size]
        for y in range(0, padded.shape[0], size)
        for x in range(0, padded.shape[1], size)
    ]
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = VLWholeSlideMicroscopyImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = Dataset()
    data.file_meta = meta
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.StudyInstanceUID, data.SeriesInstanceUID = generate_uid(), generate_uid()
    data.FrameOfReferenceUID = generate_uid()
    data.Modality, data.PatientID, data.SeriesNumber, data.InstanceNumber = "SM", "1", 1, 1
    data.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    data.Rows = data.Columns = size
    data.NumberOfFrames, data.SamplesPerPixel, data.PlanarConfiguration = len(tiles), 3, 0
    data.PhotometricInterpretation = "RGB"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 8, 8, 7, 0
    data.TotalPixelMatrixColumns, data.TotalPixelMatrixRows = width, height
    data.DimensionOrganizationType = "TILED_FULL"
    data.TotalPixelMatrixFocalPlanes = data.NumberOfOpticalPaths = 1
    measures = Dataset()
    measures.PixelSpacing = [mpp / 1000, mpp / 1000]
    shared = Dataset()
    shared.PixelMeasuresSequence = [measures]
    data.SharedFunctionalGroupsSequence = [shared]
    path_ = Dataset()
    path_.ObjectiveLensPower, path_.OpticalPathIdentifier = 40, "1"
    data.OpticalPathSequence = [path_]
    data.PixelData = b"".join(np.ascontiguousarray(tile).tobytes() for tile in tiles)
    data.is_little_endian, data.is_implicit_VR = True, False
    data.save_as(path, write_like_original=False)
    return path


def write_study(folder: Path) -> dict[str, list[Cell]]:
    """Writes slides, good and bad ones, into a datastore's folder.

    Returns:
        Cells of each good one, by its id; the first of each stands at (100, 120).
    """
    cells = scatter(640, 480, 24, seed=3, first=Cell(100.5, 120.5, 17, 13, 0.5))
    pixels = paint(640, 480, cells, seed=3)
    whole = write_slide(folder / "slide.tif", pixels).read_bytes()
    write_slide(folder / "aperio.svs", pixels, description=APERIO)
    write_slide(folder / "My Slide.svs", pixels, description=APERIO)
    write_slide(folder / "aperio_20x.svs", _halved(pixels, 2), levels=2, description=APERIO_20X)
    write_leica(folder / "leica.scn", pixels, x=100, y=60)
    Image.fromarray(pixels[:360, :600]).save(folder / "stained.png")
    # Its right part is glass.
    few = [cell for cell in cells if cell.x < 250 and cell.y < 260]
    write_slide(folder / "small.tiff", paint(420, 280, few, seed=4, glass_from=300), levels=1)
    (folder / "cut_off.tif").write_bytes(whole[: len(whole) // 2])
    (folder / "cut_off_aperio.svs").write_bytes((folder / "aperio.svs").read_bytes()[: len(whole) // 2])
    (folder / "no_slide.svs").write_bytes(b"no slide " * 1000)
    halved = [Cell(cell.x / 2, cell.y / 2, cell.a / 2, cell.b / 2, cell.angle) for cell in cells]
    scans = dict.fromkeys(("slide", "aperio", "My Slide", "leica"), cells)
    return {**scans, "aperio_20x": halved, "stained": cells[:1], "small": few}


def iou(one: BaseGeometry, other: BaseGeometry) -> float:
    """Intersection over union of two areas."""
    return float(one.intersection(other).area / one.union(other).area)


def cell_at(cells: list[Cell], polygon: BaseGeometry) -> Cell | None:
    """The cell whose middle lies in a polygon."""
    return next((cell for cell in cells if polygon.contains(Point(cell.x, cell.y))), None)
