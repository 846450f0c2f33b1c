"""The door to xenstored, with a xenstored that is busy."""

import contextlib
import socket
import struct
import threading
from pathlib import Path

from hostdev_core import Host
from hostdev_core.kernel.xenstore import Xenstore

HEADER = struct.Struct("=IIII")


def answer_all(server: socket.socket, begin: threading.Event) -> None:
    """Take whoever has queued, once told to; answer the first that asks."""
    begin.wait(60)
    while True:
        client, _ = server.accept()
        with client:
            if head := client.recv(HEADER.size):
                kind, _, _, size = HEADER.unpack(head)
                client.recv(size)
                client.sendall(HEADER.pack(kind, 0, 0, 5) + b"guest")
                return


def test_a_full_queue_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "run/xenstored/socket"
    path.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as server, contextlib.ExitStack() as queue:
        server.bind(str(path))
        server.listen(0)
        full = False
        while not full:
            waiting = queue.enter_context(socket.socket(socket.AF_UNIX))
            waiting.setblocking(False)
            full = waiting.connect_ex(str(path)) != 0
        begin = threading.Event()
        thread = threading.Thread(target=answer_all, args=(server, begin))
        thread.start()
        answers: list[str | None] = []
        asking = threading.Thread(
            target=lambda: answers.append(Xenstore(Host(str(tmp_path))).read("/x"))
        )
        asking.start()
        asking.join(0.1)
        assert asking.is_alive()  # neither refused nor answered
        queue.close()  # those before it go; it is its turn
        begin.set()
        asking.join(60)
        thread.join(60)
    assert answers == ["guest"]
