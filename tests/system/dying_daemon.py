"""labshelld, killed just before its n-th act on the world: a request that changes something in the engine, a program
of the host, a file that is renamed or removed.

n is in the first file named on the command line, which is taken away when it is read; the acts counted since then are
written to the second at every act. Without the first file this is the daemon as it is installed.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from labshell.daemon import main as daemon

WANTED, COUNTED = Path(sys.argv[1]), Path(sys.argv[2])
ACTS = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "subprocess.Popen"}
REQUESTS = (b"POST ", b"PUT ", b"PATCH ", b"DELETE ")
last, count = 0, 0


def is_act(event: str, arguments: tuple[Any, ...]) -> bool:
    if event == "http.client.send":
        return isinstance(arguments[1], bytes) and arguments[1].startswith(REQUESTS)
    return event in ACTS and str(WANTED) not in map(str, arguments)


def count_acts(event: str, arguments: tuple[Any, ...]) -> None:
    global last, count
    if not is_act(event, arguments):
        return
    if not last:
        try:
            last, count = int(WANTED.read_text()), 0
        except FileNotFoundError:
            return
        WANTED.unlink()
    count += 1
    descriptor = os.open(COUNTED, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(descriptor, f"{count} {event} {arguments[:2]!r}\n".encode())
    os.close(descriptor)
    if count >= last:
        os.kill(os.getpid(), signal.SIGKILL)


sys.argv[1:] = []
sys.addaudithook(count_acts)
daemon.main()
