from __future__ import annotations

from lib.errors import EvaluationError
from lib.scoring.agreement import AgreementScoring
from lib.scoring.registry import ALL, all_methods
from tests.unit.scoring.conftest import SETTINGS, save_label


def test_the_names_that_clients_call_them(engines):
    methods = all_methods(SETTINGS, engines)
    assert set(methods) == {"annotation_stats", "dice", "nsd", "biosam2_uncertainty", ALL}
    for name, method in methods.items():
        assert method.name == name
        assert method.info()["description"]
        assert "again" in method.info()["config"]


def test_all_at_once_is_each_of_them(engines, datastore, tmp_path):
    save_label(datastore, tmp_path, 0)
    results = all_methods(SETTINGS, engines)[ALL]({}, datastore)
    assert {name: found["scored"] for name, found in results.items()} == {
        "annotation_stats": 1,
        "agreement": 1,
        "biosam2_uncertainty": 3,
    }
    info = datastore.get_image_info("case0")
    assert {"annotation_stats", "dice", "nsd", "biosam2_uncertainty"} <= set(info)


def test_one_that_fails_stops_no_other(engines, datastore, monkeypatch):
    methods = all_methods(SETTINGS, engines)

    def fail(self, options, datastore, engines):
        raise EvaluationError("not today")

    monkeypatch.setattr(AgreementScoring, "score", fail)
    monkeypatch.setattr(methods["biosam2_uncertainty"], "score", lambda *_: {"scored": 0})
    results = methods[ALL]({}, datastore)
    assert results["agreement"] == {"error": "not today"}
    assert results["biosam2_uncertainty"] == {"scored": 0}
