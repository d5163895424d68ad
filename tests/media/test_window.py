"""Images in a window, on a virtual screen where one can be had."""

import os
import shutil
import subprocess
import sys
from contextlib import contextmanager

import pytest

from dhn.base.errors import SettingError
from dhn.media.window import Window

SHOW = """
import numpy as np
from dhn.media.window import Window
window = Window()
for shape in ((48, 64, 3), (48, 64, 3), (2000, 3000, 3)):
    assert window.show(np.zeros(shape, np.uint8), True)
window.close()
print("shown")
"""


@contextmanager
def virtual_screen():
    """The DISPLAY of a screen that nobody sees."""
    program = shutil.which("Xvfb")
    if program is None:
        pytest.skip("needs a virtual screen (Xvfb)")
    read, write = os.pipe()
    server = subprocess.Popen(
        [program, "-displayfd", str(write), "-screen", "0", "640x480x24"],
        pass_fds=(write,),
        stderr=subprocess.DEVNULL,
    )
    os.close(write)
    with os.fdopen(read) as number:
        display = f":{number.readline().strip()}"
    try:
        yield display
    finally:
        server.terminate()
        server.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems always have a screen")
def test_without_a_screen_one_line_says_so(monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SettingError, match="there is no screen here"):
        Window()


def test_images_are_shown():
    with virtual_screen() as display:
        environment = os.environ | {"DISPLAY": display, "PYTHONPATH": os.pathsep.join(sys.path)}
        result = subprocess.run(
            [sys.executable, "-c", SHOW], env=environment, capture_output=True, text=True
        )
    assert (result.returncode, result.stdout) == (0, "shown\n"), result.stderr
