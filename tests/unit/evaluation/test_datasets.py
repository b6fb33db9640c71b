"""Each public dataset as a tiny folder of phantoms that lies on disk as the real one does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lib.errors import EvaluationError, LabelError
from lib.evaluation.datasets import (
    files_below,
    find,
    read_class_folders,
    read_classes,
    read_colours,
    read_instances,
    read_presets,
    read_tracings,
    traced_mask,
)
from lib.evaluation.protocol import pipeline_named
from lib.images.reading import read_image
from tests.support import phantoms
from tests.support.studies import write_nifti, write_picture
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


PRESETS = read_presets()
VOLUME, PICTURE = phantoms.ct(), phantoms.colour_picture()


def put_volume(folder, image, label, values=(1, 2)):
    labels = np.zeros(VOLUME.image.shape, np.uint8)
    for value, mask in zip(values, VOLUME.objects.values(), strict=True):
        labels[mask] = value
    put(folder / image, write_nifti, VOLUME.image, VOLUME.affine)
    put(folder / label, write_nifti, labels, VOLUME.affine)


def put(path, write, *content):
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, *content)


def opened(name, folder):
    return {case.id: case.open(2) for case in PRESETS[name].cases(folder)}


@pytest.mark.parametrize(
    ("image", "label", "case"),
    [
        ("FLARE22Train/images/FLARE22_Tr_0001_0000.nii.gz", "FLARE22Train/labels/FLARE22_Tr_0001.nii.gz",
         "FLARE22Train/FLARE22_Tr_0001"),
        ("imagesTr/FLARE22_Tr_0002_0000.nii.gz", "labelsTr/FLARE22_Tr_0002.nii.gz", "FLARE22_Tr_0002"),
    ],
)  # fmt: skip
def test_flare22(tmp_path, image, label, case):
    put_volume(tmp_path, image, label, values=(1, 13))
    sequences = opened("flare22", tmp_path)
    assert list(sequences) == [case]
    assert [sequences[case].names[value] for value in sequences[case].objects] == ["liver", "left kidney"]
    # MICCAI FLARE22's own evaluation.
    rules = PRESETS["flare22"].rules()
    assert (rules.tolerance("liver"), rules.tolerance("duodenum"), rules.tolerance("aorta")) == (5, 7, 2)


def test_amos22_takes_the_mr_images_alone(tmp_path):
    for number in ("0004", "0500", "0507", "0600"):
        put_volume(
            tmp_path, f"imagesTr/amos_{number}.nii.gz", f"labelsTr/amos_{number}.nii.gz", values=(6, 15)
        )
    sequences = opened("amos22_mr", tmp_path)
    assert list(sequences) == ["amos_0507", "amos_0600"]
    assert [sequences["amos_0507"].names[value] for value in (6, 15)] == ["liver", "prostate or uterus"]


def test_amos22_as_umamba_numbers_it(tmp_path):
    put_volume(tmp_path, "imagesTs/amos_0507_0000.nii.gz", "labelsTs/amos_0507.nii.gz", values=(1, 2))
    (sequence,) = opened("amos22_mr", tmp_path).values()
    assert sequence.names == {1: "liver", 2: "right kidney"}


def test_btcv(tmp_path):
    put_volume(tmp_path, "RawData/Training/img/img0001.nii.gz", "RawData/Training/label/label0001.nii.gz")
    sequences = opened("btcv", tmp_path)
    assert list(sequences) == ["RawData/Training/0001"]
    assert sequences["RawData/Training/0001"].names == {1: "spleen", 2: "right kidney"}


def test_endovis17_of_the_challenge_is_cut_out_of_its_black_frame(tmp_path):
    place = tmp_path / "instrument_dataset_1"
    frame = np.zeros((1920, 1080, 1, 3), np.uint8)
    frame[320:1600, 28:1052] = 90
    mask = np.zeros((1920, 1080, 1), np.uint8)
    mask[400:500, 100:180] = 20
    put(place / "left_frames" / "frame000.png", write_picture, frame)
    put(place / "ground_truth" / "Maryland_Bipolar_Forceps_labels" / "frame000.png", write_picture, mask)
    put(place / "ground_truth" / "Other_labels" / "frame000.png", write_picture, mask)
    (sequence,) = opened("endovis17", tmp_path).values()
    assert sequence.frames[0].shape == (1024, 1280, 3)
    assert sequence.frames[0].min() == 90
    assert [sequence.names[value] for value in sequence.objects] == ["Bipolar Forceps"]
    ys, xs = np.nonzero(sequence.mask(1, 0))
    assert (xs.min(), ys.min(), xs.max(), ys.max()) == (80, 72, 179, 151)


def test_endovis17_as_umamba_has_it(tmp_path):
    put(tmp_path / "imagesTs" / "a_0000.png", write_picture, PICTURE.image)
    put(tmp_path / "labelsTs" / "a.png", write_picture, label_map(PICTURE))
    (sequence,) = opened("endovis17", tmp_path).values()
    assert sequence.kind == "picture"
    assert sequence.names == {1: "Bipolar Forceps", 2: "Prograsp Forceps"}


def test_neurips22_cells_are_instances_of_one_class(tmp_path):
    put(tmp_path / "Training-labeled" / "images" / "cell_00001.png", write_picture, PICTURE.image)
    labels = (label_map(PICTURE) * 300).astype(np.uint16)
    put(tmp_path / "Training-labeled" / "labels" / "cell_00001_label.tiff", write_picture, labels)
    sequences = opened("neurips22_cells", tmp_path)
    assert list(sequences) == ["Training-labeled/cell_00001"]
    (sequence,) = sequences.values()
    assert set(sequence.names.values()) == {"cell"}
    assert len(sequence.objects) == 2
    assert PRESETS["neurips22_cells"].rules().border == 2


def test_endovis18_is_a_clip_for_each_sequence_in_colours(tmp_path):
    release = tmp_path / "miccai_challenge_release_2"
    for sequence in ("5", "6"):
        for index in range(3):
            name = f"frame{index:03d}.png"
            put(release / f"seq_{sequence}" / "left_frames" / name, write_picture, PICTURE.image)
            colours = np.zeros((*PICTURE.image.shape[:3], 3), np.uint8)
            colours[PICTURE.objects["nucleus"]] = (255, 55, 0)
            put(release / f"seq_{sequence}" / "labels" / name, write_picture, colours)
    sequences = opened("endovis18", tmp_path)
    assert list(sequences) == ["miccai_challenge_release_2/5", "miccai_challenge_release_2/6"]
    sequence = sequences["miccai_challenge_release_2/5"]
    assert (sequence.kind, sequence.annotated) == ("clip", (0, 1, 2))
    assert [sequence.names[value] for value in sequence.objects] == ["kidney-parenchyma"]


def test_echonet_dynamic_has_two_traced_frames_of_its_test_videos(tmp_path):
    cv2 = pytest.importorskip("cv2", reason="opencv writes the film")
    lines = ["FileName,X1,Y1,X2,Y2,Frame"]
    for name in ("A", "B"):
        path = tmp_path / "EchoNet-Dynamic" / "Videos" / f"{name}.avi"
        path.parent.mkdir(parents=True, exist_ok=True)
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (112, 112))
        for _ in range(8):
            writer.write(cv2.circle(np.full((112, 112, 3), 40, np.uint8), (50, 50), 20, (200, 200, 200), -1))
        writer.release()
        for frame in (2, 6):
            lines += [f"{name}.avi,50,20,50,80,{frame}"]
            lines += [f"{name}.avi,30,{y},70,{y},{frame}" for y in range(30, 70)]
    (tmp_path / "EchoNet-Dynamic" / "VolumeTracings.csv").write_text("\n".join(lines))
    (tmp_path / "EchoNet-Dynamic" / "FileList.csv").write_text("FileName,EF,Split\nA,50,TRAIN\nB,60,TEST\n")
    sequences = opened("echonet_dynamic", tmp_path)
    assert list(sequences) == ["EchoNet-Dynamic/B"]
    sequence = sequences["EchoNet-Dynamic/B"]
    assert (sequence.annotated, sequence.names) == ((2, 6), {1: "left ventricle"})
    assert sequence.mask(1, 6).sum() == pytest.approx(40 * 40, rel=0.06)


def test_another_folder_says_what_was_looked_for(tmp_path):
    (tmp_path / "readme.txt").touch()
    for preset in PRESETS.values():
        with pytest.raises(EvaluationError) as told:
            preset.cases(tmp_path)
        assert preset.title in str(told.value)
        for layout in preset.layouts:
            assert layout.image in str(told.value)


def test_a_preset_has_metrics_of_its_pipeline_and_rows_of_a_paper():
    for preset in PRESETS.values():
        pipeline = pipeline_named(preset.pipeline)
        assert set(preset.metrics) <= set(pipeline.metrics)
        for row in preset.paper:
            numbers = {key: value for key, value in row.items() if key in pipeline.metrics}
            assert numbers
            assert all(0 < value < 1 for value in numbers.values())


def test_a_damaged_list_of_presets_is_named(tmp_path):
    path = tmp_path / "presets.yaml"
    path.write_text("a: {title: b}")
    with pytest.raises(EvaluationError, match=r"The presets .*presets\.yaml cannot be read"):
        read_presets(path)


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_a_template_is_found_at_any_depth_and_names_its_parts(tmp_path):
    touch(
        tmp_path, "a/images/case_1_0000.nii.gz", "images/case_2_0000.nii.gz", "images/case_3.nii.gz", "x.txt"
    )
    found = find(tmp_path, files_below(tmp_path), "images/{id}_0000.nii.gz")
    assert [(match.parts["id"], match.base) for match in found] == [
        ("case_1", tmp_path / "a"),
        ("case_2", tmp_path),
    ]
    assert found[0].beside("labels/{id}.nii.gz") == tmp_path / "a" / "labels" / "case_1.nii.gz"


def test_a_star_is_any_ending_and_no_folder(tmp_path):
    touch(tmp_path, "images/1.png", "images/2.tif", "images/more/3.png")
    found = find(tmp_path, files_below(tmp_path), "images/{id}.*")
    assert [match.parts["id"] for match in found] == ["1", "2"]


def test_several_names_stand_for_a_part_each(tmp_path):
    touch(tmp_path, "seq_1/left_frames/frame000.png", "seq_12/left_frames/frame001.png")
    found = find(tmp_path, files_below(tmp_path), "seq_{sequence}/left_frames/{id}.png")
    assert [dict(match.parts) for match in found] == [
        {"sequence": "1", "id": "frame000"},
        {"sequence": "12", "id": "frame001"},
    ]


def test_hidden_files_and_what_a_mac_leaves_are_passed_by(tmp_path):
    touch(tmp_path, "images/1.png", "images/._1.png", "__MACOSX/images/2.png", ".cache/images/3.png")
    assert [file.as_posix() for file in files_below(tmp_path)] == ["images/1.png"]
