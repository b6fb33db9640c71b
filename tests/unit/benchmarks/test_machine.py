import pytest

from benchmarks import machine

CPUINFO = "processor\t: 0\nmodel name\t: Some CPU @ 2.00GHz\nprocessor\t: 1\nmodel name\t: Other\n"


def test_processor_name_is_the_first_of_cpuinfo():
    assert machine.processor_name(CPUINFO) == "Some CPU @ 2.00GHz"
    assert machine.processor_name("") is None


def test_facts_are_words():
    facts = machine.machine()
    assert int(facts["cores"]) >= 1
    assert all(isinstance(value, str) and value for value in facts.values())


@pytest.mark.parametrize(("load", "warns"), [(0.1, False), (5.0, True)])
def test_a_busy_machine_is_reported(monkeypatch, load, warns):
    monkeypatch.setattr(machine.os, "getloadavg", lambda: (load, 0.0, 0.0), raising=False)
    monkeypatch.setattr(machine, "cores", lambda: 2)
    warning = machine.busy_warning()
    assert (warning is not None) == warns
    assert not warns or "load 5.0 on 2 cores" in warning
