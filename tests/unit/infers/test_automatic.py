from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from lib.engine.auto_head import AUTO_HEAD, HEAD_FILE, ONE_PROMPT, AutoHead, save_head
from lib.infers import automatic
from lib.infers.automatic import AutoTask
from lib.settings import Settings


def test_the_file_of_a_head_is_read_once_and_again_when_it_changes(tmp_path: Path, monkeypatch: Any) -> None:
    reads = []

    def counted(path: Path) -> AutoHead:
        reads.append(path)
        return original(path)

    original = automatic.load_head
    monkeypatch.setattr(automatic, "load_head", counted)
    engines: Any = SimpleNamespace(versions=SimpleNamespace(folder=lambda _: tmp_path))
    services: Any = SimpleNamespace(settings=Settings(), engines=engines, labels=())
    predictor: Any = SimpleNamespace(runtime=SimpleNamespace(device=torch.device("cpu")))
    task = AutoTask(services, None)
    assert task._heads("v1", predictor) == {}
    for name, expected in (("organ", 1), ("lesion", 2)):
        head = AutoHead([4, 4, 4], [name])
        head.ways = {name: {ONE_PROMPT: 0.5, AUTO_HEAD: 0.6}}
        save_head(tmp_path / HEAD_FILE, head)
        for _ in range(3):
            assert set(task._heads("v1", predictor)) == {name}
        assert len(reads) == expected
