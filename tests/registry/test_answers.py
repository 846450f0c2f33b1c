"""Answers of hooks in a form that is not theirs: PluginError names plugin and hook, nothing is changed."""

from typing import Any

import pytest

from hostdev_core import Domain, PCIHostdev, PluginError, hookimpl
from hostdev_core.simulated import SimulatedHost
from tests.sample import NIC, connect


def wanted(address: str, *allow: str) -> PCIHostdev:
    return PCIHostdev(address=address, allow=frozenset(allow))  # type: ignore[arg-type]


class Names:
    """A plugin that names the rules by which it refuses."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    @hookimpl
    def hostdev_rules(self) -> Any:
        return self.answer


def test_a_rule_of_no_plugin_is_told_of(host: SimulatedHost) -> None:
    with connect(host, Names(["mounted"]), Names(None)) as conn:
        plan = conn.plan(Domain("vm1", [wanted(NIC, "mounted", "mouned")]))
        (told,) = [text for text in plan.warnings if "nobody knows" in text]
        assert told.startswith("nobody knows a rule 'mouned'; did you mean 'mounted'? there are: ")


@pytest.mark.quick_cases
@pytest.mark.parametrize("answer", [["two words"], [""], [7], "mounted", "", b"mounted"])
def test_rules_are_single_words(host: SimulatedHost, answer: Any) -> None:
    before = host.snapshot()
    with connect(host, Names(answer)) as conn:
        for call in (conn.plan, conn.prepare_hostdevs):
            with pytest.raises(
                PluginError, match=r"; wanted (words in a|a list or a) tuple"
            ) as raised:
                call(Domain("vm1", [wanted(NIC, "mounted")]))
            assert raised.value.hook == "hostdev_rules"
    assert (host.snapshot(), host.ledger.records()) == (before, [])


@pytest.mark.parametrize("answer", ["", "mounted", b""])
@pytest.mark.parametrize("worker", [False, True])
def test_a_text_of_refusals_is_no_list_of_none(
    host: SimulatedHost, answer: Any, worker: bool
) -> None:
    class Says:
        @hookimpl
        def hostdev_check(self) -> Any:
            return answer

    before = host.snapshot()
    with connect(host, Says(), worker=worker) as conn:
        with pytest.raises(PluginError, match=r"answered the text.*wanted a list") as raised:
            conn.prepare_hostdevs(Domain("vm1", [NIC]))
        assert raised.value.hook == "hostdev_check"
        assert raised.value.plugin.startswith("Says")
    assert (host.snapshot(), host.ledger.records()) == (before, [])
