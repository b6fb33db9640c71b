"""Options of the app: types, ranges, and one error that names every wrong one."""

import logging
from pathlib import Path

import pytest
from pydantic import ValidationError

from lib.errors import BioSam2Error, SettingsError
from lib.settings import Settings


def test_no_option_gives_the_defaults():
    settings = Settings.from_conf({})
    assert settings == Settings()
    assert (settings.device, settings.precision, settings.model, settings.image_size) == (
        "auto",
        "auto",
        None,
        None,
    )
    assert settings.max_voxels == 268_435_456


def test_every_option_is_read_from_text():
    conf = {
        "model": "sam2.1_hiera_tiny",
        "model_dir": "weights",
        "image_size": "512",
        "precision": "BF16",
        "runtime": "OpenVINO",
        "device": "cuda:1",
        "labels": "spleen, liver,,spleen",
        "embedding_cache_mb": "0",
        "image_cache_mb": "64",
        "max_voxels": "1000",
        "largest_component": "true",
        "fill_holes": "False",
        "threads": "2",
        "zoom": "All",
        "local_corrections": "false",
        "memory": "pruned",
        "propagate_limit": "10",
        "slide_mpp": "0.5",
        "slide_channels": "DAPI,CD3",
        "rollback": "v0003",
        "strategy": "Hybrid",
        "lease_minutes": "5",
        "auto_train": "4",
        "ohif_companion": "false",
        "allowed_origins": "https://a.example.org, https://b.example.org",
        "allowed_hosts": "images.example.org",
        "api_keys": "keys.txt",
        "auth_public_key": "provider.pem",
        "max_upload_mb": "10",
        "heavy_queue": "0",
        "keep_versions": "3",
        "fuse_axes": "true",
        "prefetch": "4",
        "embedding_disk_gb": "1.5",
    }
    assert set(conf) == set(Settings.model_fields)
    assert Settings.from_conf(conf) == Settings(
        model="sam2.1_hiera_tiny",
        model_dir=Path("weights"),
        image_size=512,
        precision="bf16",
        runtime="openvino",
        device="cuda:1",
        labels=("spleen", "liver"),
        embedding_cache_mb=0,
        image_cache_mb=64,
        max_voxels=1000,
        largest_component=True,
        fill_holes=False,
        threads=2,
        zoom="all",
        local_corrections=False,
        memory="pruned",
        propagate_limit=10,
        slide_mpp=0.5,
        slide_channels=("DAPI", "CD3"),
        rollback="v0003",
        strategy="hybrid",
        lease_minutes=5,
        auto_train=4,
        ohif_companion=False,
        allowed_origins=("https://a.example.org", "https://b.example.org"),
        allowed_hosts=("images.example.org",),
        api_keys=Path("keys.txt"),
        auth_public_key=Path("provider.pem"),
        max_upload_mb=10,
        keep_versions=3,
        heavy_queue=0,
        fuse_axes=True,
        prefetch=4,
        embedding_disk_gb=1.5,
    )


def test_a_wrong_value_is_named_with_what_is_allowed():
    for name, value, allowed in [
        ("image_size", "500", "a multiple of 32 from 64 to 2048"),
        ("image_size", "32", "a multiple of 32 from 64 to 2048"),
        ("image_size", "4096", "a multiple of 32 from 64 to 2048"),
        ("image_size", "large", "a multiple of 32 from 64 to 2048"),
        ("precision", "int8", "one of auto, fp32, bf16, fp16"),
        ("device", "gpu0", "auto, cpu, cuda or cuda:N"),
        ("embedding_cache_mb", "-1", "0 or more"),
        ("max_voxels", "0", "1 or more"),
        ("threads", "nan", "0 or more"),
        ("fill_holes", "maybe", "true or false"),
        (
            "labels",
            "points",
            "names separated by commas, of at most 200 characters, not beginning with result_",
        ),
        ("labels", "liver,boxes", "names separated by commas"),
        ("labels", "result_liver", "names separated by commas"),
        ("labels", "l" * 201, "names separated by commas"),
        ("allowed_origins", "*", "origins such as https://viewer.example.org"),
        ("allowed_origins", "viewer.example.org", "origins such as https://viewer.example.org"),
    ]:
        with pytest.raises(SettingsError) as raised:
            Settings.from_conf({name: value})
        assert f"--conf {name} '{value}': must be {allowed}" in str(raised.value)


def test_all_wrong_values_come_in_one_error():
    with pytest.raises(SettingsError) as raised:
        Settings.from_conf({"threads": "x", "device": "tpu", "image_size": "256"})
    assert {line.split()[1] for line in str(raised.value).splitlines()} == {"threads", "device"}


def test_an_option_of_another_name_is_ignored_with_a_hint(caplog):
    with caplog.at_level(logging.WARNING):
        assert Settings.from_conf({"image_sise": "512", "skip_scoring": "true"}) == Settings()
    assert "image_sise is ignored (did you mean image_size?)" in caplog.messages[0]
    assert "skip_scoring" in caplog.messages[1]


def test_settings_cannot_be_changed_later():
    with pytest.raises(ValidationError):
        Settings().device = "cpu"


def test_every_option_says_what_it_is_for():
    for field in Settings.model_fields.values():
        assert field.description
        assert field.json_schema_extra["range"]


def test_a_settings_error_is_one_of_ours():
    assert issubclass(SettingsError, BioSam2Error)
