"""Disks: what is mounted or swapped to is found on them, through whatever lies between."""

from machines import Machine

NVME, OTHER, THIRD = "0000:01:00.0", "0000:02:00.0", "0000:03:00.0"


def test_a_mounted_partition(machine: Machine) -> None:
    machine.nvme(NVME)
    machine.mount("/srv", machine.part("nvme0n1", "nvme0n1p1"))
    assert machine.refused(NVME) == {
        (NVME, "mounted-filesystem"): (f"/srv is on nvme0n1p1, on nvme0n1, on {NVME}",)
    }


def test_a_disk_that_is_mounted_whole(machine: Machine) -> None:
    machine.mount("/", machine.nvme(NVME))
    assert machine.refused(NVME) == {(NVME, "root-filesystem"): (f"/ is on nvme0n1, on {NVME}",)}


def test_an_idle_disk_with_data_is_free(machine: Machine) -> None:
    machine.nvme(NVME)
    machine.mount("/", machine.part("nvme0n1", "nvme0n1p1"))
    idle = machine.part(machine.nvme(OTHER, "nvme1n1"), "nvme1n1p1")
    machine.udev(idle, ID_FS_TYPE="ext4", ID_FS_LABEL="backup")
    assert machine.refused(OTHER) == {}
    machine.virtual("dm-7", idle)  # active, and nobody has it mounted: hostdev itself names it
    assert machine.refused(OTHER) == {(OTHER, "in-use"): ("dm-7 on nvme1n1p1",)}


def test_each_use_has_its_rule(machine: Machine) -> None:
    machine.nvme(NVME)
    parts = [machine.part("nvme0n1", f"nvme0n1p{number}") for number in range(1, 6)]
    for point, part in zip(("/boot/efi", "/boot", "/", "/home"), parts, strict=False):
        machine.mount(point, part)
    machine.swap(f"/dev/{parts[4]}")
    way = f"on nvme0n1, on {NVME}"
    assert machine.refused(NVME) == {
        (NVME, "root-filesystem"): (f"/ is on nvme0n1p3, {way}",),
        (NVME, "boot-filesystem"): (
            f"/boot/efi is on nvme0n1p1, {way}",
            f"/boot is on nvme0n1p2, {way}",
        ),
        (NVME, "mounted-filesystem"): (f"/home is on nvme0n1p4, {way}",),
        (NVME, "swap"): (f"swap is on nvme0n1p5, {way}",),
    }


def test_lvm_on_luks(machine: Machine) -> None:
    machine.nvme(NVME)
    luks = machine.virtual("dm-0", machine.part("nvme0n1", "nvme0n1p2"))
    machine.mount("/", machine.virtual("dm-1", luks), source="/dev/mapper/vg-root")
    chain = f"/ is on dm-1, on dm-0, on nvme0n1p2, on nvme0n1, on {NVME}"
    assert machine.refused(NVME) == {(NVME, "root-filesystem"): (chain,)}


def test_a_mirror_keeps_both_disks(machine: Machine) -> None:
    for number, address in enumerate((NVME, OTHER)):
        machine.part(machine.nvme(address, f"nvme{number}n1"), f"nvme{number}n1p1")
    machine.mount("/", machine.virtual("md0", "nvme0n1p1", "nvme1n1p1"))
    machine.nvme(THIRD, "nvme2n1")
    assert machine.refused(NVME, OTHER, THIRD) == {
        (address, "root-filesystem"): (
            f"/ is on md0, on nvme{number}n1p1, on nvme{number}n1, on {address}",
        )
        for number, address in enumerate((NVME, OTHER))
    }


def test_a_partition_of_an_array(machine: Machine) -> None:
    machine.virtual("md127", machine.nvme(NVME))
    machine.mount("/data", machine.part("md127", "md127p1"))
    (evidence,) = machine.refused(NVME)[NVME, "mounted-filesystem"]
    assert evidence == f"/data is on md127p1, on md127, on nvme0n1, on {NVME}"


def test_a_controller_with_several_disks(machine: Machine) -> None:
    machine.add(NVME, "ahci", class_="010601")
    for number, name in enumerate(("sda", "sdb", "sdc")):
        way = f"ata{number}/host{number}/target{number}:0:0/{number}:0:0:0/block"
        machine.disk(NVME, name, way)
    machine.mount("/", machine.part("sda", "sda1"))
    machine.mount("/srv", "sdc")
    assert machine.refused(NVME) == {
        (NVME, "root-filesystem"): (f"/ is on sda1, on sda, on {NVME}",),
        (NVME, "mounted-filesystem"): (f"/srv is on sdc, on {NVME}",),
    }


def test_a_multipath_disk_needs_all_its_ways(machine: Machine) -> None:
    for number, (address, name) in enumerate(((NVME, "sda"), (OTHER, "sdb"))):
        machine.add(address, "lpfc", class_="0c0400")
        machine.disk(address, name, f"host{number}/rport-{number}:0-1/target{number}:0:1/block")
    machine.mount("/srv", machine.virtual("dm-3", machine.virtual("dm-2", "sda", "sdb")))
    refused = machine.refused(NVME, OTHER)
    assert refused[NVME, "mounted-filesystem"] == (f"/srv is on dm-3, on dm-2, on sda, on {NVME}",)
    assert refused[OTHER, "mounted-filesystem"] == (
        f"/srv is on dm-3, on dm-2, on sdb, on {OTHER}",
    )


def test_nvme_multipath(machine: Machine) -> None:
    subsystem = machine.sys / "devices/virtual/nvme-subsystem/nvme-subsys0"
    machine.part(machine.block(subsystem / "nvme0n1"), "nvme0n1p1")
    for number, address in enumerate((NVME, OTHER)):
        controller = machine.folder(machine.add(address)) / f"nvme/nvme{number}"
        (controller / f"nvme0c{number}n1").mkdir(parents=True)
        machine.link(subsystem / f"nvme{number}", controller)
    machine.mount("/", "nvme0n1p1")
    assert machine.refused(NVME, OTHER) == {
        (address, "root-filesystem"): (
            f"/ is on nvme0n1p1, on nvme0n1, on nvme{number}, on {address}",
        )
        for number, address in enumerate((NVME, OTHER))
    }


def test_a_disk_behind_a_volume_management_device(machine: Machine) -> None:
    vmd, port, disk = "0000:00:0e.0", "10000:00:02.0", "10000:01:00.0"
    machine.add(vmd, "vmd", class_="010400")
    machine.add(port, "pcieport", class_="060400", parent=vmd)
    machine.add(disk, parent=port)
    machine.mount("/", machine.disk(disk, "nvme0n1"))
    chain = f"/ is on nvme0n1, on {disk}"
    assert machine.refused(disk) == {(disk, "root-filesystem"): (chain,)}


def test_a_virtio_disk(machine: Machine) -> None:
    machine.mount("/", machine.disk(machine.add(NVME, "virtio-pci"), "vda", "virtio1/block"))
    assert machine.refused(NVME)[NVME, "root-filesystem"] == (f"/ is on vda, on {NVME}",)


def test_a_mounted_stick_and_its_controller(machine: Machine) -> None:
    host, controller = machine.host, "0000:00:14.0"
    for port in ("1-1", "1-3.2"):
        host.add_usb(port, id="0951:1666", controller=controller, kernel_driver="usb-storage")
    way = "1-3.2:1.0/host6/target6:0:0/6:0:0:0/block"
    machine.mount("/media/stick", machine.part(machine.disk("1-3.2", "sdb", way), "sdb1"))
    stick = "/media/stick is on sdb1, on sdb, on 1-3.2"
    assert machine.refused("1-1") == {}
    assert machine.refused("1-3.2") == {("1-3.2", "mounted-filesystem"): (stick,)}
    assert machine.refused(controller) == {
        (controller, "mounted-filesystem"): (f"{stick}, on 1-3, on {controller}",)
    }


def test_btrfs_over_two_disks(machine: Machine) -> None:
    machine.nvme(NVME)
    machine.nvme(OTHER, "nvme1n1")
    machine.nvme(THIRD, "nvme2n1")
    devices = machine.sys / "fs/btrfs/0b0e/devices"
    for name in ("nvme0n1", "nvme1n1"):
        machine.link(devices / name, machine.node(name))
    (machine.sys / "fs/btrfs/features").mkdir()
    machine.mount("/", type="btrfs", source="/dev/nvme0n1", options="rw,subvol=/@")
    machine.mount("/home", type="btrfs", source="/dev/nvme0n1", options="rw,subvol=/@home")
    refused = machine.refused(NVME, OTHER, THIRD)
    assert {*refused} == {
        (address, rule)
        for address in (NVME, OTHER)
        for rule in ("root-filesystem", "mounted-filesystem")
    }
    assert refused[OTHER, "root-filesystem"] == (f"/ is on nvme1n1, on {OTHER}",)


def test_a_loop_over_a_file(machine: Machine) -> None:
    machine.mount("/run/live", machine.nvme(NVME))
    loop = machine.virtual("loop0")
    machine.write(machine.node(loop) / "loop/backing_file", "/run/live/root.squashfs")
    machine.mount("/", loop, type="squashfs")
    assert machine.refused(NVME) == {
        (NVME, "root-filesystem"): (f"/ is on loop0, on nvme0n1, on {NVME}",),
        (NVME, "mounted-filesystem"): (f"/run/live is on nvme0n1, on {NVME}",),
    }


def test_a_loop_over_a_device(machine: Machine) -> None:
    machine.nvme(NVME)
    loop = machine.virtual("loop0")
    machine.write(machine.node(loop) / "loop/backing_file", "/dev/nvme0n1 (deleted)")
    machine.mount("/srv", loop)
    assert {*machine.refused(NVME)} == {(NVME, "mounted-filesystem")}


def test_bcache_keeps_the_cache_too(machine: Machine) -> None:
    machine.nvme(NVME)
    machine.nvme(OTHER, "nvme1n1")
    machine.mount("/", machine.virtual("bcache0", "nvme0n1"))
    cache = machine.node("nvme1n1") / "bcache"
    cache.mkdir()
    machine.link(machine.sys / "fs/bcache/77aa/cache0", cache)
    backing = machine.node("nvme0n1") / "bcache"
    backing.mkdir()
    machine.link(backing / "cache", machine.sys / "fs/bcache/77aa")
    machine.link(machine.node("bcache0") / "bcache", backing)
    refused = machine.refused(NVME, OTHER)
    assert refused[NVME, "root-filesystem"] == (f"/ is on bcache0, on nvme0n1, on {NVME}",)
    assert refused[OTHER, "root-filesystem"] == (f"/ is on bcache0, on nvme1n1, on {OTHER}",)


def test_a_zfs_pool(machine: Machine) -> None:
    for number, address in enumerate((NVME, OTHER, THIRD)):
        part = machine.part(machine.nvme(address, f"nvme{number}n1"), f"nvme{number}n1p1")
        pool = "other" if address == THIRD else "rpool"
        machine.udev(part, ID_FS_TYPE="zfs_member", ID_FS_LABEL=pool)
    machine.mount("/", type="zfs", source="rpool/ROOT/debian")
    assert machine.refused(NVME, OTHER, THIRD) == {
        (address, "root-filesystem"): (
            f"/ is in ZFS pool rpool, on nvme{number}n1p1, on nvme{number}n1, on {address}",
        )
        for number, address in enumerate((NVME, OTHER))
    }


def test_an_imported_pool_without_a_mount(machine: Machine) -> None:
    machine.udev(machine.nvme(NVME), ID_FS_TYPE="zfs_member", ID_FS_LABEL="tank")
    assert machine.refused(NVME) == {}
    (machine.proc / "spl/kstat/zfs/tank").mkdir(parents=True)
    machine.write(machine.proc / "spl/kstat/zfs/arcstats", "13 1 0x01")
    chain = f"ZFS pool tank is on nvme0n1, on {NVME}"
    assert machine.refused(NVME) == {(NVME, "mounted-filesystem"): (chain,)}


def test_a_pool_that_may_be_anywhere(machine: Machine) -> None:
    for number, address in enumerate((NVME, OTHER)):
        machine.part(machine.nvme(address, f"nvme{number}n1"), f"nvme{number}n1p1")
    machine.udev("nvme0n1", ID_PART_TABLE_TYPE="gpt")
    machine.udev("nvme0n1p1", ID_FS_TYPE="xfs")
    machine.mount("/tank", type="zfs", source="tank")
    refused = machine.refused(NVME, OTHER)
    assert {*refused} == {(OTHER, "zfs-members-unknown")}
    first, second = refused[OTHER, "zfs-members-unknown"], f"on nvme1n1, on {OTHER}"
    assert any(line.endswith(second) and "ZFS pool tank may be on" in line for line in first)
