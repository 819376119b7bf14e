"""A command that is told to end says so, with the exit code of a stop, whoever tells it."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

PROGRAM = """
import time
from serve_app.cli import guarded

def work():
    print("working", flush=True)
    time.sleep(60)

guarded(work, debug=False)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_stop_is_told(number: signal.Signals) -> None:
    running = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert running.stdout is not None and running.stdout.readline() == "working\n"
    running.send_signal(number)
    _, said = running.communicate(timeout=30)
    assert "stopped; nothing was written" in said


def test_who_asked_to_go_on_without_the_terminal_goes_on() -> None:
    """`nohup` has the signal ignored."""
    program = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)" + PROGRAM.replace("60", "1")
    running = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None and running.stdout.readline() == "working\n"
    running.send_signal(signal.SIGHUP)
    assert running.wait(timeout=30) == 0
