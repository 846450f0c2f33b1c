"""Sysctls, such as the boot id: in how large pieces they are read."""

import errno

from hostdev_core.kernel.files import Texts

from .fact import SYSCTL_FACTS, fact


@fact(37, 37, 37, "ENOMEM", "ENOMEM", of=SYSCTL_FACTS)
def a_sysctl_is_not_read_in_one_piece_of_megabytes(texts: Texts, boot_id: str) -> list[object]:
    def length(size: int) -> object:
        try:
            return len(texts.read_once(boot_id, size))
        except OSError as error:
            return errno.errorcode[error.errno or 0]

    return [length(size) for size in (1 << 12, 1 << 16, (4 << 20) - 1, 4 << 20, 16 << 20)]


@fact(8, True, True, of=SYSCTL_FACTS)
def a_sysctl_is_read_in_pieces(texts: Texts, boot_id: str) -> list[object]:
    part, whole = texts.read_once(boot_id, 8), texts.fetch(boot_id, 16 << 20)
    return [len(part), whole.startswith(part), len(whole) == 37]
