from pathlib import Path

from lib.evaluation.path_templates import files_below, find


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
