"""nginx in front of servers, with the configuration of ``docs/deployment.md``."""

from __future__ import annotations

import getpass
import re
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import requests

from sample_study.orthanc import free_port
from tests.support.mitk import make_certificate
from tests.support.server import REPOSITORY

GUIDE = REPOSITORY / "docs" / "deployment.md"
START_LIMIT_S = 60
# The user who runs the tests, who alone may write to their folders.
_MAIN = """daemon off;
user {user};
error_log {folder}/error.log;
pid {folder}/pid;
events {{}}
http {{
access_log off;
client_body_temp_path {folder}/body;
proxy_temp_path {folder}/proxy;
fastcgi_temp_path {folder}/fastcgi;
uwsgi_temp_path {folder}/uwsgi;
scgi_temp_path {folder}/scgi;
{site}
}}
"""


def guide_block(kind: str) -> str:
    """The code block of a language in the deployment guide."""
    found = re.search(rf"```{kind}\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None, f"docs/deployment.md has no block of {kind}"
    return found.group(1)


class Nginx:
    """The guide's site, with the ports of this machine in place of the guide's.

    Args:
        folder: for its configuration, certificate and temporary files.
        ports: Port of the server that each port of the guide stands for.
    """

    def __init__(self, folder: Path, ports: Mapping[int, int]) -> None:
        folder.mkdir()
        key, self.certificate = make_certificate(folder)
        self._folder = folder
        self.port = free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        changes = {
            "listen 443 ssl": f"listen 127.0.0.1:{self.port} ssl",
            "/etc/ssl/images.pem": str(self.certificate),
            "/etc/ssl/images.key": str(key),
            **{f"127.0.0.1:{old}": f"127.0.0.1:{new}" for old, new in ports.items()},
        }
        site = guide_block("nginx")
        for old, new in changes.items():
            assert old in site, f"the guide's nginx block has no {old}"
            site = site.replace(old, new)
        (folder / "nginx.conf").write_text(_MAIN.format(folder=folder, site=site, user=getpass.getuser()))

    @staticmethod
    def find() -> str | None:
        """The program, which Debian keeps out of people's PATH."""
        return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")

    def __enter__(self) -> Nginx:
        command = [str(self.find()), "-p", str(self._folder), "-c", str(self._folder / "nginx.conf")]
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        give_up = time.monotonic() + START_LIMIT_S
        while time.monotonic() < give_up and self._process.poll() is None:
            try:
                requests.get(f"{self.url}/health", verify=str(self.certificate), timeout=START_LIMIT_S)
            except requests.ConnectionError:
                time.sleep(0.1)
                continue
            return self
        self.__exit__()
        raise RuntimeError((self._folder / "error.log").read_text())

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(START_LIMIT_S)
