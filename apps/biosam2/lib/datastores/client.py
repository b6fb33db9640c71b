"""Opening a DICOMweb store by MONAI Label's own settings."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import requests
from dicomweb_client.ext.gcp.session_utils import create_session_from_gcp_credentials
from monailabel.config import settings
from monailabel.datastore.dicom import DICOMwebClientX
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from lib.datastores.dicomweb import DicomWebStore

# Seconds that a connection may take, and a store may be silent: it packs a series before it sends it.
_CONNECT_S, _SILENT_S = 5.0, 300.0
# Threads of the server that speak to the store at once.
_CONNECTIONS = 32
_GOOGLE = "googleapis.com"
_FILTER = "MONAI_LABEL_DICOMWEB_SEARCH_FILTER"


def open_store(url: str, max_voxels: int) -> DicomWebStore:
    """Opens a store; it is asked nothing yet, so the server starts before the store does.

    Args:
        url: of its DICOMweb root.
        max_voxels: largest image that is opened.
    """
    client = DICOMwebClientX(
        url=url,
        session=open_session(url),
        qido_url_prefix=settings.MONAI_LABEL_QIDO_PREFIX,
        wado_url_prefix=settings.MONAI_LABEL_WADO_PREFIX,
        stow_url_prefix=settings.MONAI_LABEL_STOW_PREFIX,
    )
    # The client tries five times by itself, for half a minute, whatever the error is.
    client.set_http_retry_params(retry=False)
    cache = settings.MONAI_LABEL_DICOMWEB_CACHE_PATH or settings.MONAI_LABEL_DATASTORE_CACHE_PATH
    return DicomWebStore(
        client,
        _search_filter(),
        Path(cache.strip()) if cache.strip() else None,
        max_voxels,
        settings.MONAI_LABEL_DICOMWEB_FETCH_BY_FRAME,
        settings.MONAI_LABEL_DICOMWEB_CONVERT_TO_NIFTI,
    )


def _search_filter() -> dict[str, Any]:
    """The user's filter of images; where nobody set one, none: MONAI Label's default shows CT alone.

    MONAI Label's processes get all settings by their environment, where what nobody set looks as if somebody
    had: so it is put right there.
    """
    if _FILTER not in settings.model_fields_set:
        settings.MONAI_LABEL_DICOMWEB_SEARCH_FILTER = {}
        os.environ[_FILTER] = "{}"
    return dict(settings.MONAI_LABEL_DICOMWEB_SEARCH_FILTER)


def open_session(url: str) -> requests.Session:
    """A session with the credentials of the settings, that waits for no store for ever."""
    session = create_session_from_gcp_credentials() if _GOOGLE in url else requests.Session()
    user, password = settings.MONAI_LABEL_DICOMWEB_USERNAME, settings.MONAI_LABEL_DICOMWEB_PASSWORD
    if user and password and _GOOGLE not in url:
        session.auth = (user, password)
    # A store may hang up between two requests, of which one learns when the next is lost.
    again = Retry(total=1, connect=0, backoff_factor=0.1)
    session.get_redirect_target = partial(_redirect_target, session)  # type: ignore[method-assign]
    adapter = _Limited(pool_maxsize=_CONNECTIONS, max_retries=again)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session


def _redirect_target(session: requests.Session, answer: requests.Response) -> str | None:
    """The address that a store sends its client to, on the same host alone.

    Raises:
        requests.TooManyRedirects: Another host, which would be asked in this server's name.
    """
    target: str | None = requests.Session.get_redirect_target(session, answer)
    if target is not None and session.should_strip_auth(answer.url, urljoin(answer.url, target)):
        answer.close()
        raise requests.TooManyRedirects("it redirects to another host, which is not asked")
    return target


class _Limited(HTTPAdapter):
    """Gives each request a time limit, and wildcards that Orthanc knows."""

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        options["timeout"] = options.get("timeout") or (_CONNECT_S, _SILENT_S)
        # Orthanc 1.10 takes an asterisk that is written as its code for a letter.
        request.url = (request.url or "").replace("%2A", "*")
        return super().send(request, *args, **options)
