from pathlib import Path

import pytest

from lib.engine.checkpoints import sha256_of
from lib.engine.registry import BUNDLED, Registry, record_path
from lib.errors import CheckpointError

MODEL_DIR = Path(__file__).resolve().parents[3] / "apps" / "biosam2" / "model"


@pytest.fixture
def registry() -> Registry:
    return Registry(MODEL_DIR)


def test_every_entry_names_a_configuration_that_exists(registry):
    for entry in registry.entries.values():
        assert registry.config_path(entry.config).is_file(), entry


def test_both_orders_name_registered_weights_and_end_with_the_bundled_ones(registry):
    for device in ("cpu", "cuda"):
        order = registry.preferred(device)
        assert set(order) <= set(registry.entries)
        assert len(set(order)) == len(order)
        assert order[-1] == BUNDLED


def test_metas_checkpoints_have_a_size_and_a_hash(registry):
    for name, entry in registry.entries.items():
        if name.startswith("sam2"):
            assert len(entry.sha256 or "") == 64
            assert entry.bytes


def test_what_is_not_permissive_says_so(registry):
    assert all("research" in entry.licence for entry in registry.entries.values() if not entry.permissive)
    assert not registry.entry("medsam2_latest").permissive


def test_the_bundled_weights_are_those_of_the_registry(registry):
    path = registry.path(BUNDLED)
    assert sha256_of(path) == registry.entry(BUNDLED).sha256
    assert path.stat().st_size == registry.entry(BUNDLED).bytes <= 30 * 1000 * 1000


def test_an_unknown_name_is_refused_with_those_that_are_known(registry):
    with pytest.raises(CheckpointError, match=r"Unknown model 'sam3' \(available: biosam2_mini"):
        registry.entry("sam3")


def test_a_hash_recorded_at_the_first_download_counts(tmp_path):
    (tmp_path / "registry.yaml").write_text((MODEL_DIR / "registry.yaml").read_text())
    registry = Registry(tmp_path)
    assert registry.recorded_sha256("medsam2_latest") is None
    record_path(registry.path("medsam2_latest")).write_text("abc\n")
    assert registry.recorded_sha256("medsam2_latest") == "abc"


@pytest.mark.parametrize("text", ["weights: 3", "{", "preference: {cpu: [a]}\nweights: {a: {file: x}}"])
def test_a_broken_registry_is_one_clear_error(tmp_path, text):
    (tmp_path / "registry.yaml").write_text(text)
    with pytest.raises(CheckpointError, match=r"registry\.yaml cannot be read"):
        _ = Registry(tmp_path).entries
