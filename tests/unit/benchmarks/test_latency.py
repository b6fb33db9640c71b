from benchmarks.latency import IMAGE_SIZE, arguments, report, same_volumes, write

RESULTS = {
    "machine": {"cores": "2"},
    "settings": {"input": f"{IMAGE_SIZE} px"},
    "warning": "The machine is busy.",
    "seconds": {"second click, same slice": {"ours": [0.1], "peer": [2.0]}},
    "memory_mb": {"2-D tasks": {"ours": 1.0, "peer": 2.0}},
}


def test_quick_is_one_round_of_everything():
    options = arguments(["--quick"])
    assert (options.rounds, options.propagation_rounds, options.slices) == (1, 1, 3)


def test_both_datastores_hold_the_same_bytes(tmp_path):
    volumes = same_volumes(tmp_path, (8, 8, 3), 2, seed=4)
    assert [volume.name for volume in volumes] == ["bench_004", "bench_005"]
    ours, peer = ((tmp_path / who / "bench_004.nii.gz").read_bytes() for who in ("ours", "peer"))
    assert ours[16:] == peer[16:]


def test_report_says_where_and_warns():
    text = report(RESULTS)
    assert text.startswith("cores 2.")
    assert "**The machine is busy.**" in text
    assert "| second click, same slice | 100 / 100 |" in text


def test_the_whole_report_has_the_floors_parts_too(tmp_path):
    seconds = {**RESULTS["seconds"], "decoder": {"floor": [0.07]}}
    write({**RESULTS, "seconds": seconds}, tmp_path)
    assert "| decoder | 70 / 70 |" in (tmp_path / "latency.md").read_text()
    assert (tmp_path / "latency.json").stat().st_size > 0
