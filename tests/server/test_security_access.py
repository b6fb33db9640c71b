"""Access control: every route by role, with API keys and with tokens of an identity provider."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import numpy as np
import pytest
import requests
from cryptography.hazmat.primitives.asymmetric import rsa
from monailabel.client import MONAILabelClient

from lib.server.api_keys import ROLES, add_key
from tests.support import studies
from tests.support.client import LIMIT_S, Client
from tests.support.identity import CLIENT_ID, KEY_ID, PASSWORD, IdentityProvider
from tests.support.launcher import APP, run_script
from tests.support.server import Server, copy_model_folder, environment
from tests.support.slicer import EXTRA
from tests.support.studies import write_nifti

PUBLIC, USER, ANNOTATOR, ADMIN = "public", "user", "annotator", "admin"
# Method and path of every route, with the lowest role that may use it. As MONAI Label has them, but for
# PUT and DELETE of /model (annotator there) and POST to the proxy (user there).
TABLE = {
    "GET /health": PUBLIC,
    "GET /login": PUBLIC,
    "POST /login": PUBLIC,
    "POST /logout": PUBLIC,
    "GET /auth/": PUBLIC,
    "POST /auth/token": PUBLIC,
    "GET /favicon.ico": PUBLIC,
    "GET /auth/token/valid": USER,
    "GET /info/": USER,
    "GET /metrics": USER,
    "GET /logs/": ADMIN,
    "GET /logs/gpu": ADMIN,
    "GET /": USER,
    "GET /docs": USER,
    "GET /openapi.json": USER,
    "GET /ohif/companion/{name}": USER,
    "GET /ohif/{path:path}": USER,
    "GET /static/{path:path}": USER,
    "POST /infer/{model}": USER,
    "POST /infer/wsi/{model}": USER,
    "POST /infer/wsi_v2/{model}": USER,
    "GET /infer/progress": USER,
    "POST /batch/infer/{model}": ADMIN,
    "GET /batch/infer": USER,
    "DELETE /batch/infer": ADMIN,
    "GET /batch/infer/": USER,
    "DELETE /batch/infer/": ADMIN,
    "POST /train/": ADMIN,
    "POST /train/{model}": ADMIN,
    "GET /train/": USER,
    "GET /train/report": USER,
    "DELETE /train/": ADMIN,
    "GET /model/info/{model}": ADMIN,
    "GET /model/{model}": ADMIN,
    "PUT /model/{model}": ADMIN,
    "DELETE /model/{model}": ADMIN,
    "POST /activelearning/{strategy}": USER,
    "POST /scoring/": ANNOTATOR,
    "POST /scoring/{method}": ANNOTATOR,
    "GET /scoring/": USER,
    "DELETE /scoring/": ANNOTATOR,
    "GET /datastore/": USER,
    "PUT /datastore/": ANNOTATOR,
    "PUT /datastore/image": ANNOTATOR,
    "GET /datastore/image": USER,
    "HEAD /datastore/image": USER,
    "DELETE /datastore/": ADMIN,
    "DELETE /datastore/image": ADMIN,
    "GET /datastore/image/info": USER,
    "PUT /datastore/image/info": ANNOTATOR,
    "PUT /datastore/label": ANNOTATOR,
    "GET /datastore/label": USER,
    "HEAD /datastore/label": USER,
    "DELETE /datastore/label": ADMIN,
    "GET /datastore/label/info": USER,
    "PUT /datastore/label/info": ANNOTATOR,
    "PUT /datastore/updatelabelinfo": ANNOTATOR,
    "GET /datastore/dataset": ANNOTATOR,
    "PUT /session/": USER,
    "GET /session/{session_id}": USER,
    "DELETE /session/{session_id}": USER,
    "GET /proxy/dicom/{path:path}": USER,
    "POST /proxy/dicom/{path:path}": ANNOTATOR,
}
CT = studies.phantom("ct")
LESION = CT.click("lesion")
# MONAI Label's client leaves its connections open, which Python warns of.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


class Signed:
    """A server that asks for credentials: by role, what a client has to send."""

    def __init__(self, server: Server, headers: dict[str, dict[str, str]]):
        self.server = server
        self.url = server.url
        self.headers = headers

    def send(self, method: str, path: str, role: str | None, **options: Any) -> requests.Response:
        headers = {**(self.headers[role] if role else {}), **options.pop("headers", {})}
        return requests.request(
            method, self.url + path, headers=headers, timeout=LIMIT_S, allow_redirects=False, **options
        )


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("access")


def _start(workdir: Path, conf: dict[str, str], env: dict[str, str] | None = None) -> Server:
    (workdir / "outside").mkdir(parents=True)
    folder = studies.write_datastore(workdir / "studies", workdir / "outside")
    model_dir = str(copy_model_folder(workdir / "model"))
    return Server(folder, workdir, {"model_dir": model_dir, **conf}, env=env).start()


@pytest.fixture(scope="module")
def keys(workdir: Path) -> dict[str, str]:
    return {role: add_key(workdir / "keys.txt", f"{role}-name", role) for role in ROLES}


@pytest.fixture(scope="module")
def keyed(workdir: Path, keys: dict[str, str]) -> Iterator[Signed]:
    server = _start(workdir / "keyed", {"api_keys": str(workdir / "keys.txt")})
    yield Signed(server, {role: {"X-API-Key": key} for role, key in keys.items()})
    server.stop()


@pytest.fixture(scope="module")
def provider() -> Iterator[IdentityProvider]:
    with IdentityProvider() as found:
        yield found


@pytest.fixture(scope="module")
def tokens(workdir: Path, provider: IdentityProvider) -> Iterator[Signed]:
    env = {"MONAI_LABEL_AUTH_ENABLE": "true", "MONAI_LABEL_AUTH_REALM_URI": provider.realm}
    server = _start(workdir / "tokens", {}, env)
    headers = {
        role: {"Authorization": f"Bearer {provider.token(f'{role}-name', f'monailabel-{role}')}"}
        for role in ROLES
    }
    yield Signed(server, headers)
    server.stop()


def test_the_table_has_every_route_that_the_server_has(workdir: Path) -> None:
    folder = workdir / "routes"
    (folder / "studies").mkdir(parents=True)
    script = Path(__file__).parent / "list_routes.py"
    arguments = [APP, folder / "studies", copy_model_folder(folder / "m")]
    output = run_script(script, arguments, environment(folder), folder)
    found = re.findall(r"^ROUTE (.+)$", output, flags=re.MULTILINE)
    assert set(found) == set(TABLE)
    assert len(found) == len(set(found))


def _statuses(signed: Signed, route: str) -> dict[str | None, int]:
    """Answers to a request without a usable body, which changes nothing."""
    method, path = route.split(" ")
    path = re.sub(r"\{\w+(:path)?\}", "nothing", path)
    body = {"data": b"["} if method == "POST" else {}
    return {role: signed.send(method, path, role, **body).status_code for role in (None, *ROLES)}


@pytest.mark.parametrize("way", ["keyed", "tokens"])
def test_every_route_asks_for_its_role(way: str, request: pytest.FixtureRequest) -> None:
    signed: Signed = request.getfixturevalue(way)
    for route, lowest in TABLE.items():
        for role, status in _statuses(signed, route).items():
            case = f"{route} as {role}: {status}"
            if lowest == PUBLIC:
                assert status != 403, case
                assert status != 401 or route in ("POST /auth/token", "POST /login"), case
            elif role is None:
                assert status == 401, case
            elif ROLES.index(role) < ROLES.index(lowest):
                assert status == 403, case
            else:
                assert status not in (401, 403), case
                assert status < 500, case


def test_what_is_no_route_is_behind_the_keys_as_well(keyed: Signed) -> None:
    for path in ("/reload", "/nothing", "/docs/oauth2-redirect", "//info/"):
        assert keyed.send("GET", path, None).status_code == 401
        assert keyed.send("GET", path, "admin").status_code == 404
    assert keyed.send("POST", "/reload", "admin").status_code in (404, 405)


def test_a_key_is_taken_in_every_way_that_clients_have(keyed: Signed, keys: dict[str, str]) -> None:
    key = keys["annotator"]
    for options in (
        {"headers": {"X-API-Key": key}},
        {"headers": {"Authorization": f"Bearer {key}"}},
        {"auth": ("anything", key)},
    ):
        answer = requests.get(f"{keyed.url}/auth/token/valid", timeout=LIMIT_S, **options)
        assert answer.json() == {"username": "annotator-name", "roles": ["monailabel-annotator"]}
    for wrong in ("", "x", key[:-1], key + "x", "\u00e9", keys["admin"].upper()):
        for headers in ({"X-API-Key": wrong.encode()}, {"Authorization": f"Bearer {wrong}".encode()}):
            assert requests.get(f"{keyed.url}/info/", headers=headers, timeout=LIMIT_S).status_code == 401
    for header in ("Basic", "Basic !!!", "Basic eA==", "Digest x", "Bearer"):
        headers = {"Authorization": header}
        assert requests.get(f"{keyed.url}/info/", headers=headers, timeout=LIMIT_S).status_code == 401


def test_a_browser_signs_in_on_a_page_and_gets_a_cookie(keyed: Signed, keys: dict[str, str]) -> None:
    browser = requests.Session()
    browser.headers["Accept"] = "text/html"
    page = browser.get(f"{keyed.url}/ohif/viewer?x=1", timeout=LIMIT_S)
    assert page.url.endswith("/login?next=/ohif/viewer%3Fx%3D1")
    assert 'type="password"' in page.text
    own = {"Origin": keyed.url}
    form = {"password": "wrong", "next": "/ohif/viewer?x=1"}
    refused = browser.post(f"{keyed.url}/login", data=form, headers=own, timeout=LIMIT_S)
    assert (refused.status_code, browser.cookies.get_dict()) == (401, {})
    done = browser.post(
        f"{keyed.url}/login",
        data={**form, "password": keys["user"]},
        headers=own,
        timeout=LIMIT_S,
        allow_redirects=False,
    )
    assert (done.status_code, done.headers["location"]) == (303, "/ohif/viewer?x=1")
    cookie = done.headers["set-cookie"]
    assert all(word in cookie for word in ("HttpOnly", "SameSite=lax"))
    assert keys["user"] not in cookie
    assert browser.get(f"{keyed.url}/info/", timeout=LIMIT_S).json()["name"] == "BioSAM-2"
    # A page of another site that sends the cookie along is refused.
    foreign = {"Origin": "http://evil.example"}
    assert (
        browser.post(f"{keyed.url}/activelearning/first", headers=foreign, timeout=LIMIT_S).status_code == 403
    )
    forged = jwt.encode({"sub": "admin-name", "exp": int(time.time()) + 99}, b"x" * 32, "HS256")
    for value in ("x", "", forged):
        answer = requests.get(f"{keyed.url}/info/", cookies={"biosam2_session": value}, timeout=LIMIT_S)
        assert answer.status_code == 401


def test_the_login_page_leads_nowhere_else(keyed: Signed, keys: dict[str, str]) -> None:
    for target in ("https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)", ""):
        form = {"password": keys["user"], "next": target}
        answer = keyed.send("POST", "/login", None, data=form)
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
    page = keyed.send("GET", '/login?next=/"><script>', None)
    assert "<script>" not in page.text


def test_a_key_that_is_removed_from_the_file_ends_its_cookies(
    keyed: Signed, workdir: Path, keys: dict[str, str]
) -> None:
    path = workdir / "keys.txt"
    before = path.read_text()
    key = add_key(path, "guest", "user")
    answer = keyed.send("POST", "/login", None, data={"password": key})
    cookies = answer.cookies.get_dict()
    assert requests.get(f"{keyed.url}/info/", cookies=cookies, timeout=LIMIT_S).status_code == 200
    path.write_text(before)
    assert requests.get(f"{keyed.url}/info/", cookies=cookies, timeout=LIMIT_S).status_code == 401
    assert keyed.send("GET", "/info/", None, headers={"X-API-Key": key}).status_code == 401
    assert keys["user"] not in before
    assert path.stat().st_mode & 0o077 == 0


def test_who_did_what_is_in_the_log_and_in_the_labels_info(keyed: Signed, tmp_path: Path) -> None:
    label = write_nifti(tmp_path / "label.nii.gz", CT.objects["lesion"].astype(np.uint8), CT.affine)
    answer = keyed.send(
        "PUT",
        "/datastore/label?image=ct",
        "annotator",
        files={"label": ("label.nii.gz", label.read_bytes())},
        data={"params": '{"user": "somebody else"}'},
        headers={"X-Request-ID": "this-one"},
    )
    assert (answer.status_code, answer.headers["x-request-id"]) == (200, "this-one")
    info = keyed.send("GET", "/datastore/label/info?label=ct&tag=final", "user").json()
    assert info["user"] == "annotator-name"
    line = next(line for line in keyed.server.log.splitlines() if '"request_id": "this-one"' in line)
    assert '"user": "annotator-name"' in line
    assert '"path": "/datastore/label"' in line


def test_segmenting_saves_labels_for_annotators_only(keyed: Signed) -> None:
    form = {"params": f'{{"foreground": [{LESION}], "save_label": true, "label_tag": "drawn"}}'}
    for role, status in (("user", 403), ("annotator", 200)):
        assert keyed.send("POST", "/infer/biosam2_point?image=ct_nrrd", role, data=form).status_code == status


@pytest.mark.parametrize("way", ["keyed", "tokens"])
def test_3d_slicer_signs_in_with_name_and_password(
    way: str, request: pytest.FixtureRequest, tmp_path: Path, keys: dict[str, str]
) -> None:
    signed: Signed = request.getfixturevalue(way)
    slicer = MONAILabelClient(signed.url, tmpdir=str(tmp_path), client_id="me")
    assert slicer.auth_enabled() is True
    assert slicer.auth_valid_token() is False
    slicer.update_auth(slicer.auth_token("anna", PASSWORD if way == "tokens" else keys["annotator"]))
    assert slicer.auth_valid_token() is True
    assert slicer.info()["name"] == "BioSAM-2"
    prompts = {**EXTRA, "label": "lesion", "foreground": [LESION], "background": [], "slice": LESION[2]}
    path, _ = slicer.infer("biosam2_point", "ct", prompts)
    assert Path(path).stat().st_size > 0
    with pytest.raises(Exception, match="401"):
        slicer.auth_token("anna", "wrong")


def test_a_token_is_taken_from_this_provider_for_this_server_only(
    tokens: Signed, provider: IdentityProvider
) -> None:
    role = "monailabel-user"

    def status(token: str) -> int:
        return tokens.send("GET", "/info/", None, headers={"Authorization": f"Bearer {token}"}).status_code

    assert status(provider.token("anna", role)) == 200
    assert status(provider.token("anna", role, azp=None, aud=[CLIENT_ID, "other"])) == 200
    other_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = provider.documents["/realms/hospital/certs"]["keys"][0]["n"]
    claims = provider.claims("anna", role)
    wrong = {
        "expired": provider.token("anna", role, exp=int(time.time()) - 60),
        "never expires": provider.token("anna", role, exp=None),
        "other issuer": provider.token("anna", role, iss="http://evil.example/realms/hospital"),
        "no issuer": provider.token("anna", role, iss=None),
        "other client": provider.token("anna", role, azp="other"),
        "no name": provider.token("anna", role, preferred_username=None),
        "no role": provider.token("anna"),
        "other role": provider.token("anna", "admin"),
        "other key": jwt.encode(claims, other_key, "RS256", headers={"kid": KEY_ID}),
        "unknown key": jwt.encode(claims, provider.key, "RS256", headers={"kid": "second"}),
        "no signature": jwt.encode(claims, "", "none", headers={"kid": KEY_ID}),
        "symmetric": jwt.encode(claims, public, "HS256", headers={"kid": KEY_ID}),
        "no token": "x.y.z",
    }
    assert {name: status(token) for name, token in wrong.items()} == dict.fromkeys(wrong, 401)


def test_browsers_sign_in_at_the_provider_s_password_as_well(tokens: Signed) -> None:
    form = {"username": "anna", "password": PASSWORD}
    answer = tokens.send("POST", "/login", None, data=form)
    assert answer.status_code == 303
    who = requests.get(
        f"{tokens.url}/auth/token/valid", cookies=answer.cookies.get_dict(), timeout=LIMIT_S
    ).json()
    assert who["username"] == "anna"
    assert tokens.send("POST", "/login", None, data={**form, "password": "wrong"}).status_code == 401


def test_a_file_of_keys_that_cannot_be_read_stops_the_server(workdir: Path) -> None:
    server = Server(workdir, workdir / "broken", {"api_keys": str(workdir / "missing.txt")})
    with pytest.raises(RuntimeError, match="make api-key"):
        server.start()


def test_without_keys_there_is_nothing_to_sign_in(client: Client) -> None:
    assert requests.get(f"{client.url}/auth/", timeout=LIMIT_S).status_code == 404
    assert requests.get(f"{client.url}/logs/", timeout=LIMIT_S).status_code in (200, 404)
