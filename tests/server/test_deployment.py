"""What ``docs/deployment.md`` says, run where the programs are: nginx, systemd, hadolint, docker compose."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import requests
from monailabel.client import MONAILabelClient

from lib.server.api_keys import add_key
from tests.support import studies
from tests.support.client import LIMIT_S, read_mask
from tests.support.nginx import Nginx, guide_block
from tests.support.phantoms import FROM_CLICK, dice
from tests.support.server import REPOSITORY, Server, copy_model_folder
from tests.support.slicer import EXTRA

CT = studies.phantom("ct")
LESION = CT.click("lesion")
# MONAI Label's client leaves its connections open, which Python warns of.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def _server(workdir: Path, arguments: tuple[str, ...]) -> Server:
    (workdir / "outside").mkdir(parents=True)
    folder = studies.write_datastore(workdir / "studies", workdir / "outside")
    conf = {
        "model_dir": str(copy_model_folder(workdir / "model")),
        "api_keys": str(workdir.parent / "keys"),
    }
    return Server(folder, workdir, conf, arguments=arguments)


@pytest.mark.skipif(Nginx.find() is None, reason="nginx is not installed")
def test_nginx_of_the_guide_speaks_tls_for_two_servers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = add_key(tmp_path / "keys", "anna", "annotator")
    servers = [_server(tmp_path / "root", ()), _server(tmp_path / "below", ("--root_path", "/liver"))]
    try:
        for server in servers:
            server.start()
        ports = {8000: servers[0].port, 8001: servers[1].port}
        with Nginx(tmp_path / "nginx", ports) as nginx:
            trusted = str(nginx.certificate)
            monkeypatch.setenv("SSL_CERT_FILE", trusted)  # for MONAI Label's client
            monkeypatch.setenv("REQUESTS_CA_BUNDLE", trusted)
            for root in ("", "/liver"):
                _check_site(nginx.url, root, key, tmp_path)
    finally:
        for server in servers:
            server.stop()


def _check_site(url: str, root: str, key: str, folder: Path) -> None:
    """Refusals, signing in as a browser does, and a click with 3D Slicer's client, below a path."""
    session = requests.Session()
    assert session.get(f"{url}{root}/info/", timeout=LIMIT_S).status_code == 401
    page = session.get(f"{url}{root}/docs", headers={"Accept": "text/html"}, timeout=LIMIT_S)
    assert page.url == f"{url}{root}/login?next={root}/docs"
    form = {"password": key, "next": f"{root}/docs"}
    foreign = {"Origin": "https://evil.example"}
    assert session.post(page.url, data=form, headers=foreign, timeout=LIMIT_S).status_code == 403
    signed = session.post(page.url, data=form, headers={"Origin": url}, timeout=LIMIT_S)
    assert (signed.status_code, signed.url) == (200, f"{url}{root}/docs")
    cookie = next(iter(session.cookies))
    assert (cookie.secure, cookie.path) == (True, root or "/")
    assert f"{root}/openapi.json" in signed.text
    assert session.get(f"{url}{root}/info/", timeout=LIMIT_S).json()["name"] == "BioSAM-2"
    rebound = session.get(f"{url}{root}/info/", headers={"Host": "evil.example"}, timeout=LIMIT_S)
    assert rebound.status_code == 403
    slicer = MONAILabelClient(f"{url}{root}", tmpdir=str(folder), client_id="me")
    slicer.update_auth(slicer.auth_token("anna", key))
    prompts = {**EXTRA, "label": "lesion", "foreground": [LESION], "background": [], "slice": LESION[2]}
    path, _ = slicer.infer("biosam2_point", "ct", prompts)
    mask = read_mask(Path(path).read_bytes())[0][:, :, LESION[2]]
    assert dice(mask.astype(bool), CT.objects["lesion"][:, :, LESION[2]]) > FROM_CLICK


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_the_systemd_unit_is_valid(tmp_path: Path) -> None:
    unit = tmp_path / "biosam2.service"
    # Its program has to be there.
    unit.write_text(guide_block("ini").replace("/opt/biosam2/.venv/bin/monailabel", sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="hadolint is not installed")
def test_the_dockerfile_has_no_findings() -> None:
    command = ["hadolint", "--no-color", str(REPOSITORY / "Dockerfile")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def _compose() -> list[str] | None:
    """docker compose, as a plugin of docker or as a program."""
    for command in (["docker", "compose"], ["docker-compose"]):
        if (
            shutil.which(command[0])
            and not subprocess.run([*command, "version"], capture_output=True).returncode
        ):
            return command
    return None


def test_docker_compose_reads_its_file() -> None:
    command = _compose()
    if command is None:
        pytest.skip("docker compose is not installed")
    asked = [*command, "-f", str(REPOSITORY / "compose.yaml"), "config"]
    secret = {**os.environ, "ORTHANC_PASSWORD": "long"}
    done = subprocess.run(asked, env=secret, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("long") >= 2
    without = {name: value for name, value in os.environ.items() if name != "ORTHANC_PASSWORD"}
    refused = subprocess.run(asked, env=without, capture_output=True, text=True, timeout=120, check=False)
    assert "choose a password" in refused.stderr
