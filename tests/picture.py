"""The picture of README.md: the login shell's first screen, as a terminal of 80 columns and 24 rows shows it.

The login shell is the real one, in a pseudo-terminal; a socket answers its one request with an example instead of a
daemon's report, so that the picture is the same on every machine. `scripts/picture` draws it anew.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from html import escape
from itertools import groupby
from pathlib import Path

import pyte
from pyte.screens import Char

TREE = Path(__file__).resolve().parents[1]
PICTURE = TREE / "docs/first-screen.svg"
COLUMNS, ROWS = 80, 24
PROMPT = "labshell> "
SECONDS = 30
CELL_WIDTH, CELL_HEIGHT, MARGIN = 8.4, 18, 12
BACKGROUND, FOREGROUND = "#1d2021", "#d5c4a1"
COLOURS = {"green": "#b8bb26", "brown": "#fabd2f", "red": "#fb4934"}
# What the daemon answers to Start on a host of ordinary size.
STATUS = {
    "user": "alice", "host": "gpu1", "host_port": 22, "menu_idle_minutes": 60, "state": "running", "address": "10.83.0.2",
    "has_ports": True, "port": 20010, "last_port": 20019, "host_key": "ssh-ed25519 AAAA", "uptime_seconds": 11100,
    "gateway_fingerprint": "SHA256:7v0pL2n9yVtD1q5xk3uWmCz8sBfE4hRgJ6aTiYoNQXM",
    "fingerprint": "SHA256:ceO0Th3FjcTbhi+YIvRR5Wkd1oUobVYQ9kEP5dnjpBw", "cpu_limit": "8", "memory_used": 12 << 30, "memory_limit": "64GiB",
    "disk_used": 83 << 30, "disk_limit": "200GiB", "processes": 61, "host_load": 21.4, "host_processors": 64,
    "host_memory_used": 180 << 30, "host_memory_total": 512 << 30, "idle_stop_days": 7, "kept": None, "notice": None,
}  # fmt: skip
PROGRAM = """
import sys
sys.path.append(sys.argv.pop(1))
from labshell import places
places.USER_SOCKET = sys.argv.pop(1)
from labshell.shell.main import main
main()
"""


def screen() -> pyte.Screen:
    """The cells of the first screen, once the menu waits for input."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{folder}/socket")
        listener.listen()
        listener.settimeout(SECONDS)
        answering = threading.Thread(target=_answer, args=(listener,))
        answering.start()
        try:
            return _shown_by([sys.executable, "-ISXutf8", "-c", PROGRAM, str(TREE), f"{folder}/socket"])
        finally:
            answering.join()


def _answer(listener: socket.socket) -> None:
    """One request, one report, as the daemon frames them."""
    connection, _ = listener.accept()
    with connection:
        connection.settimeout(SECONDS)
        request = b""
        while not request.endswith(b"\0"):
            request += connection.recv(65536)
        assert json.loads(request[:-1])["method"] == "org.labshell.Gateway.Start"
        connection.sendall(json.dumps({"parameters": {"status": STATUS}}).encode() + b"\0")


def _shown_by(argv: list[str]) -> pyte.Screen:
    shown = pyte.Screen(COLUMNS, ROWS)
    stream = pyte.ByteStream(shown)
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    environment = {"TERM": "xterm", "TZ": "UTC", "LANG": "C.UTF-8"}
    with subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as shell:
        os.close(theirs)
        deadline = time.monotonic() + SECONDS
        while not any(line.startswith(PROMPT.rstrip()) for line in shown.display):
            ready, _, _ = select.select([ours], [], [], max(0, deadline - time.monotonic()))
            if not ready:
                break
            stream.feed(os.read(ours, 65536))
        shell.kill()
    os.close(ours)
    assert any(line.startswith(PROMPT.rstrip()) for line in shown.display), "\n".join(shown.display)
    return shown


def text_of(shown: pyte.Screen) -> str:
    """What stands on the screen, line by line."""
    return "\n".join(line.rstrip() for line in shown.display).rstrip()


def svg(shown: pyte.Screen) -> str:
    """The cells as SVG: one element for each run of cells that look the same."""
    width, height = COLUMNS * CELL_WIDTH + 2 * MARGIN, ROWS * CELL_HEIGHT + 2 * MARGIN
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}" role="img">',
        "<title>The first screen of labshell in a terminal of 80 x 24</title>",
        f'<rect width="100%" height="100%" rx="8" fill="{BACKGROUND}"/>',
        '<g font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, \'DejaVu Sans Mono\', monospace" font-size="14" style="white-space: pre">',
    ]
    for row in range(ROWS):
        cells = [(column, shown.buffer[row][column]) for column in range(COLUMNS)]
        for look, run in groupby(cells, key=lambda cell: _look(cell[1])):
            characters = list(run)
            whole = "".join(cell.data for _, cell in characters).rstrip()
            text = whole.lstrip()
            if text:
                column = characters[0][0] + len(whole) - len(text)
                x, y = MARGIN + column * CELL_WIDTH, MARGIN + row * CELL_HEIGHT + 14
                length = len(text) * CELL_WIDTH
                lines.append(
                    f'<text x="{x:g}" y="{y:g}" textLength="{length:g}" {look}>{escape(text, quote=False)}</text>'
                )
    return "\n".join([*lines, "</g>", "</svg>", ""])


def _look(cell: Char) -> str:
    """The attributes of a cell. pyte does not keep what is dim; the labels of the card are in the usual colour then."""
    fill = COLOURS.get(cell.fg, FOREGROUND)
    return f'fill="{fill}"' + (' font-weight="bold"' if cell.bold else "")


if __name__ == "__main__":
    PICTURE.write_text(svg(screen()))
