"""The folder of what dhn can compute or download again."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """The folder named by `DHN_HOME`, else the platform's cache folder for dhn.

    It need not exist yet.
    """
    if home := os.environ.get("DHN_HOME"):
        return Path(home).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("dhn", appauthor=False))
