import numpy as np
import pytest

from lib.errors import LabelError
from lib.evaluation.ground_truth import (
    read_class_folders,
    read_classes,
    read_colours,
    read_instances,
    read_tracings,
    traced_mask,
)
from lib.images.reading import read_image
from tests.support import phantoms
from tests.support.studies import write_picture
from tests.unit.evaluation.conftest import label_map

PHANTOM = phantoms.colour_picture()


@pytest.fixture
def image(tmp_path):
    return read_image(write_picture(tmp_path / "frame000.png", PHANTOM.image), 10**6)


def test_classes_have_the_names_of_the_dataset(tmp_path, image):
    path = write_picture(tmp_path / "label.png", label_map(PHANTOM))
    found = read_classes(path, image, {1: "forceps", 2: "scissors"})
    assert found.names == {1: "forceps", 2: "scissors"}
    assert (found.array == label_map(PHANTOM)).all()


def test_instances_are_all_of_one_class(tmp_path, image):
    path = write_picture(tmp_path / "label.png", label_map(PHANTOM) * 7)
    assert read_instances(path, image, {1: "cell"}).names == {7: "cell", 14: "cell"}


def test_a_colour_is_a_class_and_any_other_colour_is_background(tmp_path, image):
    colours = {"shaft": (0, 255, 0), "wrist": (125, 255, 12)}
    drawn = np.full((*PHANTOM.image.shape[:3], 3), 9, np.uint8)
    drawn[PHANTOM.objects["nucleus"]] = colours["wrist"]
    found = read_colours(write_picture(tmp_path / "label.png", drawn), image, colours)
    assert found.names == {1: "shaft", 2: "wrist"}
    assert (found.array == 2 * PHANTOM.objects["nucleus"]).all()


def test_a_picture_of_another_size_is_refused(tmp_path, image):
    path = write_picture(tmp_path / "label.png", np.zeros((10, 12, 1, 3), np.uint8))
    with pytest.raises(LabelError, match=r"label\.png has \(10, 12\) pixels and its image \(120, 88\)"):
        read_colours(path, image, {"shaft": (0, 255, 0)})


def test_folders_of_masks_belong_to_the_class_in_their_names(tmp_path, image):
    for name, mask in [
        ("Left_Prograsp_Forceps_labels", PHANTOM.objects["nucleus"]),
        ("Right_Prograsp_Forceps_labels", PHANTOM.objects["other"]),
        ("Other_labels", np.ones_like(PHANTOM.objects["other"])),
    ]:
        (tmp_path / "truth" / name).mkdir(parents=True)
        write_picture(tmp_path / "truth" / name / "frame000.png", mask.astype(np.uint8) * 30)
    found = read_class_folders(tmp_path / "truth", image, {1: "Vessel Sealer", 2: "Prograsp Forceps"})
    assert (found.array == 2 * (PHANTOM.objects["nucleus"] | PHANTOM.objects["other"])).all()


def test_without_a_folder_of_any_class_it_says_so(tmp_path, image):
    with pytest.raises(LabelError, match=r"truth has no mask frame000\.png in a folder named after a class"):
        read_class_folders(tmp_path / "truth", image, {1: "Vessel Sealer"})


def test_tracings_are_lines_by_video_and_frame(tmp_path):
    path = tmp_path / "VolumeTracings.csv"
    path.write_text("FileName,X1,Y1,X2,Y2,Frame\na.avi,1,2,3,4,46\na.avi,5,6,7,8,46\nb.avi,1,1,2,2,0\n")
    found = read_tracings(path)
    assert sorted(found) == ["a", "b"]
    assert found["a"][46].tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]


def test_other_columns_and_words_for_numbers_are_refused(tmp_path):
    path = tmp_path / "VolumeTracings.csv"
    for content in ("FileName,X,Y,Frame\na.avi,1,2,3\n", "FileName,X1,Y1,X2,Y2,Frame\na.avi,1,2,x,3,4\n"):
        path.write_text(content)
        with pytest.raises(
            LabelError, match=r"VolumeTracings\.csv cannot be read: it needs numbers in FileName, X1"
        ):
            read_tracings(path)


def test_lines_across_an_object_span_its_area():
    # The long axis, then lines from x = 10 to x = 29.6 on the rows 20 to 40.
    lines = np.array([[20, 5, 20, 60], *([10, y, 29.6, y] for y in range(20, 41))], float)
    mask = traced_mask(lines, 80, 100)
    assert mask.shape == (80, 100)
    # 21 columns from 10 to 30 and 21 rows from 20 to 40, of which skimage leaves out the far border.
    ys, xs = np.nonzero(mask)
    assert (ys.min(), xs.min()) == (20, 10)
    assert ys.max() in (39, 40)
    assert xs.max() in (29, 30)
    assert mask.sum() == (ys.max() - 19) * (xs.max() - 9)
