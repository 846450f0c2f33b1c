"""The rules by name, and what each says of a device. The names stay: `--allow` is told them."""

ROOT = "root-filesystem"
BOOT = "boot-filesystem"
MOUNTED = "mounted-filesystem"
SWAP = "swap"
ZFS = "zfs-members-unknown"
ROUTE = "default-route"
MEMBER = "bond-or-bridge"
CONSOLE = "console-gpu"

REASONS = {
    ROOT: "the host's root file system is on it",
    BOOT: "the host boots from it",
    MOUNTED: "a mounted file system is on it: unmount that first",
    SWAP: "the host swaps to it: swapoff(8) first",
    ZFS: "an imported ZFS pool may be on it, as udev does not say where the pool is: export that first",
    ROUTE: "the host's default route goes over it",
    MEMBER: "it belongs to a bond or bridge: take it out of that first",
    CONSOLE: "the host's console is on it",
}
