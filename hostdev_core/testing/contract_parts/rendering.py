"""The contract: what a hypervisor is told about a device says which device, and is true."""

import json
import os

import pytest

from hostdev_core import (
    Assignment,
    Connection,
    Domain,
    LocalHostdevDriver,
    Plan,
    PrepareFlags,
    USBHostdev,
)
from hostdev_core.simulated import SimulatedHost
from hostdev_core.testing.contract_parts.base import (
    DISK,
    GPU,
    NIC,
    SOUND,
    ContractBase,
    Untouched,
    add_card,
)

# Addresses that are the same in a shorter form, and one that needs every digit.
LOOKALIKES = ("0001:01:00.0", "10000:01:00.0", "0000:01:00.1", "0000:ab:1f.7")
MICE = ("1-1", "1-2")


class Rendering(ContractBase):
    """Arguments and nodes."""

    @pytest.fixture
    def crowd(self, host: SimulatedHost) -> Domain:
        """A domain that wants devices with similar addresses, a group, and two equal mice."""
        for group, address in enumerate(LOOKALIKES, 10):
            add_card(host, address, "igb", group)
        wanted = [NIC, DISK, GPU, SOUND, *LOOKALIKES]
        if self.driver.takes_usb:
            for port in MICE:
                host.add_usb(port, id="046d:c077")
            wanted += MICE
        return Domain("vm1", wanted)

    def test_arguments_are_words_that_tell_the_devices_apart(
        self, conn: Connection, crowd: Domain
    ) -> None:
        rendered = [assignment.arguments for assignment in conn.prepare_hostdevs(crowd)]
        for words in rendered:
            assert all(isinstance(word, str) and word and word.isprintable() for word in words)
        if self.driver.arguments is LocalHostdevDriver.arguments:
            return  # it says nothing of any
        assert () not in rendered
        assert len({*rendered}) == len(rendered), rendered

    def test_the_words_of_a_domain_hand_over_each_of_its_devices(
        self, conn: Connection, crowd: Domain
    ) -> None:
        lent = conn.prepare_hostdevs(crowd)
        whole = conn.arguments(lent)
        assert all(word and word.isprintable() for word in whole)
        if all(each.arguments == () for each in lent):
            return  # it says nothing of any
        for left_out in lent:
            rest = conn.arguments(each for each in lent if each is not left_out)
            assert rest != whole, (
                f"{left_out.device} makes no difference in domain_arguments: {whole}"
            )

    def test_a_node_is_there_and_of_this_host(
        self, host: SimulatedHost, conn: Connection, crowd: Domain
    ) -> None:
        for assignment in conn.prepare_hostdevs(crowd):
            if (node := assignment.node) is not None:
                assert node.startswith(f"{host.root}/"), "reach the machine through host.path()"
                assert os.path.exists(node), assignment

    def test_another_connection_renders_the_same(
        self, host: SimulatedHost, conn: Connection, crowd: Domain
    ) -> None:
        first = conn.prepare_hostdevs(crowd)
        with self.connect(host) as other, Untouched(host):
            again = other.prepare_hostdevs(crowd, PrepareFlags.ALLOW_SAME_OWNER)
        assert again == first

    def test_rendering_only_looks(
        self, host: SimulatedHost, conn: Connection, crowd: Domain
    ) -> None:
        driver = self.driver()
        assignments = conn.prepare_hostdevs(crowd)
        host.clear_writes()
        with Untouched(host):
            assert [self.render(driver, host, one) for one in assignments] == [
                (one.node, one.arguments) for one in assignments
            ]
        assert host.writes() == []

    def render(
        self, driver: LocalHostdevDriver, host: SimulatedHost, assignment: Assignment
    ) -> tuple[str | None, tuple[str, ...]]:
        """Ask a driver that knows nothing of the past for the arguments of a lent device."""
        assert assignment.device is not None
        node = driver.node(host, assignment.device)
        return node, tuple(driver.arguments(assignment.device, node))

    def test_what_is_missing_has_no_words(self, host: SimulatedHost, conn: Connection) -> None:
        self.need_usb()
        absent = USBHostdev(port="1-9", startup_policy="optional")
        (assignment,) = conn.prepare_hostdevs(Domain("vm1", [absent]))
        assert (assignment.device, assignment.node, assignment.arguments) == (None, None, ())

    def test_the_plan_for_all_of_it_is_data(self, conn: Connection, crowd: Domain) -> None:
        plan = conn.plan(crowd)
        assert Plan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan
