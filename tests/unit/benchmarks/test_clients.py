from benchmarks.clients import ALONE, CLICK, INFO, PROPAGATING, Record, report


def test_the_rate_stands_beside_its_aim():
    record = Record()
    for way, count in ((ALONE, 80), (PROPAGATING, 20)):
        record.seconds[CLICK, way] = [0.1] * count
        record.seconds[INFO, way] = [0.01]
    text = report(record, 20, 2.0, {"cores": "2"}, rate_aim=37.2)
    assert f"| {CLICK} | {ALONE} | 100 | 100 | 40.0 | ≥ 37.2 (kept) |" in text
    assert f"| {CLICK} | {PROPAGATING} | 100 | 100 | 10.0 |  |" in text
    assert "missed" in report(record, 20, 4.0, {}, rate_aim=37.2)
    assert "aim" in report(record, 20, 4.0, {})
