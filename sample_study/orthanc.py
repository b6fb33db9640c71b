"""Runs Orthanc, a small PACS, with its DICOMweb plugin in a separate process."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType

import requests

# Folders of the program (often not on PATH) and of the plugin in Debian's and Orthanc's own builds.
PROGRAM_FOLDERS = ("/usr/sbin", "/usr/local/sbin")
PLUGIN_FOLDERS = (Path("/usr/share/orthanc/plugins"), Path("/usr/local/share/orthanc/plugins"))
PLUGIN = "libOrthancDicomWeb.so"
INSTALL = (
    "install Orthanc with its DICOMweb plugin; on Debian and Ubuntu: apt-get install orthanc orthanc-dicomweb"
)
# Orthanc starts in half a second; a busy machine takes longer.
START_LIMIT_S = 30
STOP_LIMIT_S = 10
REQUEST_LIMIT_S = 60
LOG_TAIL = 2000


class OrthancMissingError(RuntimeError):
    """Orthanc or its plugin is not installed; the message names the packages."""


def find_orthanc() -> Path | None:
    """Path of Orthanc; None if it or its DICOMweb plugin is absent."""
    found = shutil.which("Orthanc", path=os.pathsep.join([os.environ.get("PATH", ""), *PROGRAM_FOLDERS]))
    return Path(found) if found and _plugin() else None


def _plugin() -> Path | None:
    return next((folder / PLUGIN for folder in PLUGIN_FOLDERS if (folder / PLUGIN).exists()), None)


def free_port() -> int:
    """A free TCP port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Orthanc:
    """An Orthanc that runs while the context is open and answers this machine only.

    Args:
        folder: Folder of images, index and log; created if absent, kept afterwards.
        port: HTTP port; default: a free one.

    Raises:
        OrthancMissingError: Orthanc is not installed.
    """

    def __init__(self, folder: Path, port: int | None = None) -> None:
        program = find_orthanc()
        if program is None:
            raise OrthancMissingError(INSTALL)
        self._program = program
        self.folder = folder
        self.port = free_port() if port is None else port
        self.url = f"http://127.0.0.1:{self.port}"
        self.dicomweb_url = f"{self.url}/dicom-web"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Orthanc:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> Orthanc:
        """Starts the process and waits until it answers.

        Raises:
            RuntimeError: it ended or did not answer in time; the message has the end of its log.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        configuration = self.folder / "orthanc.json"
        configuration.write_text(json.dumps(self._configuration(), indent=1) + "\n")
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [str(self._program), str(configuration)],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches this process only, which then stops Orthanc
            )
        give_up = time.monotonic() + START_LIMIT_S
        while time.monotonic() < give_up and self._process.poll() is None:
            if self._answers():
                return self
            time.sleep(0.1)
        self.stop()
        tail = self._log.read_text(errors="replace")[-LOG_TAIL:]
        raise RuntimeError(f"Orthanc did not start on port {self.port}:\n{tail}")

    def stop(self) -> None:
        """Stops the process; stored images stay in the folder."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def store(self, *folders: Path) -> None:
        """Stores the ``.dcm`` files of folders; existing ones are unchanged.

        Raises:
            requests.HTTPError: Orthanc rejects a file.
        """
        with requests.Session() as session:
            for path in (path for folder in folders for path in sorted(folder.rglob("*.dcm"))):
                answer = session.post(f"{self.url}/instances", path.read_bytes(), timeout=REQUEST_LIMIT_S)
                answer.raise_for_status()

    def series(self) -> list[str]:
        """Series Instance UIDs of all stored images, sorted."""
        answer = requests.get(f"{self.url}/series?expand", timeout=REQUEST_LIMIT_S)
        answer.raise_for_status()
        return sorted(entry["MainDicomTags"]["SeriesInstanceUID"] for entry in answer.json())

    def _answers(self) -> bool:
        """Whether this process answers, and not another one on the port."""
        try:
            system = requests.get(f"{self.url}/system", timeout=START_LIMIT_S).json()
        except requests.RequestException:
            return False
        return bool(system["Name"] == self._name)

    @property
    def _name(self) -> str:
        return f"BioSAM-2 in {self.folder.resolve()}"

    @property
    def _log(self) -> Path:
        return self.folder / "orthanc.log"

    def _configuration(self) -> dict[str, object]:
        storage = str((self.folder / "storage").resolve())
        return {
            "Name": self._name,
            "StorageDirectory": storage,
            "IndexDirectory": storage,
            "Plugins": [str(_plugin())],
            "HttpPort": self.port,
            "DicomServerEnabled": False,
            # Orthanc listens on all addresses, but rejects remote clients.
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            # Address in DICOMweb responses; clients need the port.
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "Host": f"127.0.0.1:{self.port}"},
        }
