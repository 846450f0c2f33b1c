"""What the simulator answers to raw writes is what a real kernel answers, fact by fact."""

from __future__ import annotations

import pytest

from . import facts, inside_facts, machines
from .guest import Guest
from .inside_facts import Answers
from .world import call

pytestmark = pytest.mark.case("what sysfs answers to raw writes")


@pytest.fixture(scope="module")
def answers(bare: Guest) -> Answers:
    bare.check("modprobe -a vfio-pci pci-stub")
    return {
        **call(bare, inside_facts.run_facts, ["FACTS"], machines.NIC2),
        **call(bare, inside_facts.run_facts, ["SRIOV_FACTS"], machines.NVME),
    }


@pytest.fixture(scope="module")
def xen_answers(dom0: Guest) -> Answers:
    dom0.check("modprobe xen-pciback")
    return call(dom0, inside_facts.run_facts, ["XEN_FACTS"], machines.XEN_NIC)


@pytest.mark.parametrize("name", [fact.name for fact in facts.FACTS + facts.SRIOV_FACTS])
def test_fact(name: str, answers: Answers) -> None:
    seen, expected = answers[name]
    assert seen == expected


@pytest.mark.case("what pciback answers to raw writes", tool="xen")
@pytest.mark.parametrize("name", [fact.name for fact in facts.XEN_FACTS])
def test_xen_fact(name: str, xen_answers: Answers) -> None:
    seen, expected = xen_answers[name]
    assert seen == expected
