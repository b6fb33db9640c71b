from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch

from lib.engine.auto_head import AUTO_HEAD, HEAD_FILE, ONE_PROMPT, AutoHead, load_head, save_head
from lib.engine.model_versions import Versions
from lib.engine.predictor_pool import PredictorPool
from lib.errors import CheckpointError, TrainingError
from lib.images.cache import ImageCache
from lib.infers.automatic import AutoTask
from lib.infers.task import Services
from lib.metrics.segmentation import dice
from lib.settings import Settings
from lib.trainers.progress import read_stats
from lib.trainers.training import train

OPTIONS = {"preset": "auto_head", "max_epochs": 6, "steps_per_epoch": 10, "batch_size": 4, "image_size": 0}


class NoTemplates:
    """A datastore whose labels are known by name and have no usable file."""

    def __init__(self, names):
        self._names = list(names)

    def names(self):
        return self._names

    def one_prompt(self, predictor, label, without):
        return None, 0


def test_a_head_is_published_with_the_weights_in_service_and_what_it_is_better_at(make_plan, labelled):
    plan = make_plan(**OPTIONS)
    train(plan)
    stats = read_stats(plan.folder)
    versions = Versions(plan.model_dir)
    assert stats["status"] == "published", stats
    record = versions.read("v0001")
    assert (record.base, record.rendered_prompts, record.single_mask) == ("biosam2_mini", True, False)
    folder = versions.folder("v0001")
    assert (folder / "weights.pt").read_bytes() == plan.service.path.read_bytes()
    head = load_head(folder / HEAD_FILE)
    assert set(head.ways) == set(head.labels) == {"label_1", "label_2"}
    assert head.ways == record.metrics["ways"]
    assert head.better
    assert all(head.ways[name][AUTO_HEAD] > head.ways[name][ONE_PROMPT] for name in head.better)
    assert max(head.ways[name][AUTO_HEAD] for name in head.labels) > 0.6
    # Clicks are answered as before: the same weights and settings.
    pool = PredictorPool(Settings(precision="fp32"), plan.model_dir)
    assert (pool.weights().version, pool.weights().meta_settings) == ("v0001", plan.service.meta_settings)
    assert (plan.folder / "report.html").is_file()
    # biosam2_auto takes the head for these labels, without a template.
    services = Services(Settings(), pool, ImageCache(1 << 28, 1 << 28), ())
    task = AutoTask(services, NoTemplates(head.labels))
    path, params = task({"image": labelled[0].image})
    assert params["ways"] == dict.fromkeys(head.better, AUTO_HEAD)
    truth, found = (np.asarray(nib.load(file).dataobj) for file in (labelled[0].label, path))
    for name in head.better:
        value = params["label_names"][name]
        assert dice(found == value, truth == int(name.removeprefix("label_"))) > 0.5


def test_labels_of_one_side_alone_are_no_classes(make_plan, labelled):
    plan = make_plan(**OPTIONS)
    named = [
        replace(item, label_info=[{"name": f"{item.id} {n}", "idx": n} for n in (1, 2)]) for item in labelled
    ]
    with pytest.raises(TrainingError, match="No label is on a learned and on a held-out image"):
        train(replace(plan, images=tuple(named)))


def test_a_head_reads_what_it_wrote_and_refuses_what_it_did_not(tmp_path):
    head = AutoHead([8, 16, 32], ["liver", "spleen"])
    head.ways = {"liver": {ONE_PROMPT: 0.5, AUTO_HEAD: 0.75}, "spleen": {ONE_PROMPT: 0.5, AUTO_HEAD: 0.5}}
    save_head(tmp_path / HEAD_FILE, head)
    read = load_head(tmp_path / HEAD_FILE)
    assert read.better == ["liver"]
    maps = [torch.randn(2, 8, 16, 16), torch.randn(2, 16, 8, 8), torch.randn(2, 32, 4, 4)]
    assert torch.allclose(read(maps), head(maps), atol=1e-5)
    assert read(maps).shape == (2, 2, 16, 16)
    (tmp_path / HEAD_FILE).write_bytes(b"no head")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_head(tmp_path / HEAD_FILE)
