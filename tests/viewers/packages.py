"""What the tests of this folder need from the system: ``python -m tests.viewers.packages``."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from sample_study.orthanc import find_orthanc

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = ("chromium", "fonts-dejavu-core")  # without a font its pictures have no words
ORTHANC = ("orthanc", "orthanc-dicomweb")
MISSING = 2


def find_chromium() -> Path | None:
    """The browser, under any of its names."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    return Path(found) if found else None


def missing() -> list[str]:
    """Debian's packages of what is not there."""
    return [*(() if find_orthanc() else ORTHANC), *(() if find_chromium() else CHROMIUM)]


def main() -> int:
    """Installs what is missing where that is allowed, else says what to install.

    Returns:
        0 when all is there, 2 when something is missing still.
    """
    packages = missing()
    if packages and shutil.which("apt-get") and os.geteuid() == 0:
        print(f"Installing {' '.join(packages)} ...", flush=True)
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
            subprocess.run(["apt-get", "-qq", *command], env=environment, check=False)
        packages = missing()
    if packages:
        print(
            f"Missing: {' '.join(packages)}. On Debian and Ubuntu, as root: "
            f"apt-get install -y --no-install-recommends {' '.join(packages)}",
            file=sys.stderr,
        )
        return MISSING
    return 0


if __name__ == "__main__":
    sys.exit(main())
