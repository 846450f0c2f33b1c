"""How the kernel names what is mounted and swapped to, and mounts that keep nothing."""

import pytest

from machines import Machine

NVME, OTHER = "0000:01:00.0", "0000:02:00.0"


def test_a_mapped_device_is_found_by_its_name(machine: Machine) -> None:
    name = machine.virtual("dm-0", machine.nvme(NVME))
    machine.write(machine.node(name) / "dm/name", "luks-home")
    machine.mount("/home", type="btrfs", source="/dev/mapper/luks-home")
    (evidence,) = machine.refused(NVME)[NVME, "mounted-filesystem"]
    assert evidence == f"/home is on dm-0, on nvme0n1, on {NVME}"


def test_a_node_may_be_a_link(machine: Machine) -> None:
    machine.nvme(NVME)
    target = machine.host.path("dev/disk/by-label/swap")
    machine.link(machine.sys / target, machine.sys / machine.host.path("dev/nvme0n1"))
    machine.swap("/dev/disk/by-label/swap")
    assert machine.refused(NVME) == {(NVME, "swap"): (f"swap is on nvme0n1, on {NVME}",)}


def test_a_link_out_of_the_machine_leads_nowhere(machine: Machine) -> None:
    machine.nvme(NVME)
    (machine.sys / "dev/block/8:1").symlink_to("/sys/dev")
    (machine.sys / "class/block/sdz").symlink_to("/")
    machine.append(machine.proc / "self/mountinfo", "50 1 8:1 / / rw - ext4 /dev/sdz rw\n")
    assert machine.refused(NVME) == {}


def test_xfs_has_more_devices(machine: Machine) -> None:
    machine.mount("/srv", machine.nvme(NVME), type="xfs", options="rw,logdev=/dev/nvme1n1,noquota")
    machine.nvme(OTHER, "nvme1n1")
    assert machine.refused(OTHER)[OTHER, "mounted-filesystem"] == (
        f"/srv is on nvme1n1, on {OTHER}",
    )


def test_a_swap_file(machine: Machine) -> None:
    machine.mount("/", machine.nvme(NVME))
    machine.mount("/var/swap\\040space", machine.nvme(OTHER, "nvme1n1"))
    machine.swap("/var/swap\\040space/file", "file")
    refused = machine.refused(NVME, OTHER)
    assert (NVME, "swap") not in refused
    assert refused[OTHER, "swap"] == (f"swap file /var/swap space/file is on nvme1n1, on {OTHER}",)
    machine.swap("/var/swap", "file")
    assert machine.refused(NVME)[NVME, "swap"] == (f"swap file /var/swap is on nvme0n1, on {NVME}",)


def test_swap_in_memory_keeps_nothing(machine: Machine) -> None:
    machine.nvme(NVME)
    machine.swap(f"/dev/{machine.virtual('zram0')}")
    assert machine.refused(NVME) == {}


def test_compressed_swap_in_memory_that_is_written_back(machine: Machine) -> None:
    machine.nvme(NVME)
    machine.block(machine.sys / "devices/virtual/block/zram0")
    machine.swap("/dev/zram0")
    machine.write(machine.node("zram0") / "backing_dev", "none")
    assert machine.refused(NVME) == {}
    machine.write(machine.node("zram0") / "backing_dev", "/dev/nvme0n1")
    assert machine.refused(NVME) == {(NVME, "swap"): (f"swap is on zram0, on nvme0n1, on {NVME}",)}


def test_mounts_of_process_1_count(machine: Machine) -> None:
    machine.nvme(NVME)
    machine.mount("/srv", "nvme0n1", process="1")
    assert {*machine.refused(NVME)} == {(NVME, "mounted-filesystem")}


@pytest.mark.parametrize("type_", ["ext4", "xfs", "btrfs"])
def test_a_mount_of_another_namespace(machine: Machine, type_: str) -> None:
    machine.nvme(NVME)
    folder = "0b0e/devices/nvme0n1" if type_ == "btrfs" else "nvme0n1"
    (machine.sys / "fs" / type_ / folder).mkdir(parents=True)
    chain = f"a mounted {type_} is on nvme0n1, on {NVME}"
    assert machine.refused(NVME) == {(NVME, "mounted-filesystem"): (chain,)}
    machine.mount("/srv", "nvme0n1", type=type_)
    assert machine.refused(NVME)[NVME, "mounted-filesystem"] == (f"/srv is on nvme0n1, on {NVME}",)


def test_mounts_without_a_disk(machine: Machine) -> None:
    machine.nvme(NVME)
    machine.mount("/", type="overlay", source="overlay", options="rw,lowerdir=/a:/b")
    machine.mount("/home", type="nfs4", source="server:/export")
    machine.mount("/tmp", type="tmpfs", source="tmpfs")
    machine.mount("/mnt", type="fuse.anything", source="/dev/nvme0n1")  # any user says so
    assert machine.refused(NVME) == {}


def test_a_mount_point_may_have_any_name(machine: Machine) -> None:
    machine.nvme(NVME)
    machine.mount("/a\\040b\\134\x0b\u2028\x85-", "nvme0n1")
    (evidence,) = machine.refused(NVME)[NVME, "mounted-filesystem"]
    assert evidence.startswith("/a b\\\x0b\u2028\x85- is on nvme0n1")


def test_many_mounts_are_shortened(machine: Machine) -> None:
    machine.nvme(NVME)
    for number in range(40):
        machine.mount(f"/srv/{number}", "nvme0n1")
        machine.mount(f"/srv/{number}", "nvme0n1", process="1")
    evidence = machine.refused(NVME)[NVME, "mounted-filesystem"]
    assert evidence[0] == f"/srv/0 is on nvme0n1, on {NVME}"
    assert evidence[5:] == ("and 35 more",)
