import errno
import json
import threading

import pytest
import torch

from lib.engine.model_versions import CONFIG_FILE, RECORD_FILE, WEIGHTS_FILE, Versions, save_weights
from lib.errors import CheckpointError


def record(parent=None, **changes):
    return {
        "base": "biosam2_mini",
        "parent": parent,
        "image_size": 256,
        "rendered_prompts": True,
        "sha256": "0" * 64,
        "created": "2026-01-02T03:04:05+00:00",
        **changes,
    }


@pytest.fixture
def versions(tmp_path):
    return Versions(tmp_path)


def add(versions, parent=None):
    with versions.new_folder() as folder:
        save_weights(folder / WEIGHTS_FILE, {"w": torch.ones(3)})
        (folder / CONFIG_FILE).write_text("model: {}\n")
        return versions.add(folder, record(parent))


def test_without_versions_the_base_is_served(versions, tmp_path):
    assert (versions.names(), versions.current(), list(versions.lineage())) == ([], None, [])
    assert list(tmp_path.iterdir()) == []


def test_a_version_is_kept_and_served_when_it_is_switched_to(versions):
    first = add(versions)
    assert versions.names() == ["v0001"]
    assert versions.current() is None
    versions.switch(first.name)
    second = add(versions, first.name)
    assert versions.current() == "v0001"
    versions.switch(second.name)
    assert [version.name for version in versions.lineage()] == ["v0002", "v0001"]
    assert torch.load(versions.weights_path("v0002"), weights_only=True)["model"]["w"].tolist() == [1, 1, 1]


def test_going_back_deletes_nothing_and_numbers_are_not_used_again(versions):
    for _ in range(2):
        versions.switch(add(versions, versions.current()).name)
    versions.switch("v0001")
    assert versions.current() == "v0001"
    versions.switch(None)
    assert versions.current() is None
    assert add(versions).name == "v0003"
    assert versions.names() == ["v0001", "v0002", "v0003"]


def test_a_record_of_an_older_app_goes_back_to_what_it_was_trained_from(versions):
    add(versions)
    add(versions, "v0001")
    path = versions.folder("v0002") / RECORD_FILE
    fields = json.loads(path.read_text())
    assert fields.pop("before") == "v0001"
    path.write_text(json.dumps(fields))
    assert versions.read("v0002").before == "v0001"


def test_who_publishes_waits_for_who_publishes(versions, tmp_path):
    done = threading.Event()

    def switch():
        Versions(tmp_path).switch(None)
        done.set()

    add(versions)
    with versions.unchanged():
        other = threading.Thread(target=switch)
        other.start()
        # For the one that holds the lock it is open.
        versions.switch(add(versions).name)
        assert not done.is_set()
        assert versions.current() == "v0002"
    other.join()
    assert versions.current() is None


def test_more_than_nine_thousand_versions_stay_in_order(versions, tmp_path):
    for number in (9999, 10000, 2):
        folder = tmp_path / "versions" / f"v{number:04d}"
        folder.mkdir(parents=True)
        (folder / WEIGHTS_FILE).write_bytes(b"weights")
    assert versions.names() == ["v0002", "v9999", "v10000"]


@pytest.mark.parametrize("name", ["v0007", "", "../v0001", "base"])
def test_an_unknown_version_cannot_be_switched_to(versions, name):
    add(versions)
    with pytest.raises(CheckpointError, match=r"available: v0001"):
        versions.switch(name)
    assert versions.current() is None


def test_a_folder_that_was_not_added_leaves_nothing(versions, tmp_path):
    with versions.new_folder() as folder:
        (folder / WEIGHTS_FILE).write_bytes(b"half")
    assert versions.names() == []
    assert list((tmp_path / "versions").iterdir()) == []


def test_what_a_killed_training_left_is_swept_and_that_of_a_running_one_is_not(versions, tmp_path):
    # No process has this number: it is above what kernels give out.
    dead = tmp_path / "versions" / ".new-4194999-abc"
    dead.mkdir(parents=True)
    with versions.new_folder() as running:
        with versions.new_folder():
            assert running.is_dir()
        assert not dead.exists()


def test_a_damaged_record_is_named(versions):
    name = add(versions).name
    (versions.folder(name) / "version.json").write_text('{"name": "v0001"')
    with pytest.raises(CheckpointError, match="record of version v0001"):
        versions.read(name)


def test_a_full_disk_leaves_what_was_served(versions, monkeypatch):
    versions.switch(add(versions).name)

    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device")

    # A disk cannot be filled here: bringing a file to it fails instead, as it does then.
    monkeypatch.setattr("lib.files.sync", full)
    with pytest.raises(OSError, match="No space left"):
        add(versions, "v0001")
    with pytest.raises(OSError, match="No space left"):
        versions.switch(None)
    assert versions.current() == "v0001"
    assert versions.names() == ["v0001"]


def test_old_weights_are_pruned_but_never_those_in_service_nor_the_way_back(tmp_path):
    versions = Versions(tmp_path, keep=2)
    for _ in range(5):
        versions.switch(add(versions, versions.current()).name)
    assert versions.names() == ["v0003", "v0004", "v0005"]
    # What was known of the others is kept, and their numbers are not used again.
    assert versions.read("v0001").name == "v0001"
    assert [version.name for version in versions.lineage()] == ["v0005", "v0004", "v0003"]
    with pytest.raises(CheckpointError, match="keep_versions"):
        versions.switch("v0001")
    versions.switch("v0003")
    for _ in range(4):
        add(versions)
    versions.switch("v0003")
    assert versions.names() == ["v0003", "v0008", "v0009"]
    assert versions.before("v0003") is None
    versions.switch(versions.before("v0005"))
    assert versions.current() == "v0003"
    versions.switch(None)
    assert versions.names() == ["v0008", "v0009"]
    assert add(versions).name == "v0010"


def test_without_a_bound_all_weights_are_kept(versions):
    for _ in range(4):
        versions.switch(add(versions, versions.current()).name)
    assert len(versions.names()) == 4
    assert versions.before("v0004") == "v0003"
