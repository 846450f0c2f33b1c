"""Detect gevent and eventlet, which put greenlets in the place of threads."""

import sys
import types

from hostdev_core.errors import StateError

# Name, module to ask, its function, and the parts to ask it about.
_PATCHERS = (
    ("gevent", "gevent.monkey", "is_module_patched", ("threading", "_thread", "os", "select")),
    ("eventlet", "eventlet.patcher", "is_monkey_patched", ("thread", "os", "select")),
)


def check_threads() -> None:
    """Raise StateError where the threads of this process are greenlets, not the kernel's.

    A write that the kernel does not return from would keep all of them, past every deadline.
    """
    for name, module, question, parts in _PATCHERS:
        patcher = sys.modules.get(module)
        if patcher is not None and (patched := _patched(patcher, question, parts)):
            raise StateError(
                f"{name} has put greenlets in the place of this process's threads (it patched"
                f" {', '.join(patched)}), and hostdev needs real ones: a kernel that does not return"
                " would keep the whole process; nothing was changed. Run the `hostdev` command"
                f" (subprocess), or make the call in a process that {name} has not patched"
            )


def _patched(patcher: types.ModuleType, question: str, parts: tuple[str, ...]) -> list[str]:
    asked = getattr(patcher, question, None)
    return [part for part in parts if callable(asked) and asked(part)]
