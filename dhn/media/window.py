"""A window on the screen."""

import subprocess
import sys

import cv2
import numpy as np

from dhn.base.errors import SettingError

_NAME = "dhn"
_PROBE = "import cv2; cv2.namedWindow('dhn'); cv2.waitKey(1); cv2.destroyAllWindows()"
_ENOUGH = (ord("q"), 27)  # or Esc


class Window:
    """Shows images; it must be used in the main thread alone.

    Raises:
        SettingError: there is no screen.
    """

    def __init__(self) -> None:
        # Where there is no screen, some builds of OpenCV end the process instead of raising.
        probe = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, check=False)
        if probe.returncode:
            raise SettingError(
                "show", True, "there is no screen here; leave it out, and look at the files"
            )
        cv2.namedWindow(_NAME, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
        self._size: tuple[int, ...] = ()

    def show(self, image: np.ndarray, moves: bool) -> bool:
        """Shows an image; a still one stays until a key is pressed.

        Args:
            image: RGB uint8 [H, W, 3].
            moves: whether it is a frame of a video.

        Returns:
            whether to go on: False after q or Esc, and when the window was closed.
        """
        if image.shape != self._size:
            self._size = image.shape
            height, width = image.shape[:2]
            scale = min(1, 1280 / width, 800 / height)
            cv2.resizeWindow(_NAME, round(scale * width), round(scale * height))
        cv2.imshow(_NAME, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        while True:
            key = cv2.waitKey(1 if moves else 50)
            if key & 0xFF in _ENOUGH or cv2.getWindowProperty(_NAME, cv2.WND_PROP_VISIBLE) < 1:
                return False
            if moves or key >= 0:
                return True

    def close(self) -> None:
        """Takes the window from the screen."""
        cv2.destroyAllWindows()
