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

# Time limits in seconds for the connection and for silence: a store packs a series before it sends it.
_CONNECT_S, _SILENT_S = 5.0, 300.0
# Connections to the store at the same time.
_CONNECTIONS = 32
_GOOGLE = "googleapis.com"
_FILTER = "MONAI_LABEL_DICOMWEB_SEARCH_FILTER"


def open_store(url: str, max_voxels: int) -> DicomWebStore:
    """Opens a store without a request to it, so that the server can start before the store.

    Args:
        url: DICOMweb root of the store.
        max_voxels: Largest image that is opened, in voxels.
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
    """The user's filter of images; without one, none: MONAI Label's default lists CT only.

    Background processes get all settings as environment variables, so that the default looks like a choice of
    the user there. It is therefore replaced in the environment as well.
    """
    if _FILTER not in settings.model_fields_set:
        settings.MONAI_LABEL_DICOMWEB_SEARCH_FILTER = {}
        os.environ[_FILTER] = "{}"
    return dict(settings.MONAI_LABEL_DICOMWEB_SEARCH_FILTER)


def open_session(url: str) -> requests.Session:
    """A session with the credentials of the settings and time limits; no redirects to other hosts."""
    session = create_session_from_gcp_credentials() if _GOOGLE in url else requests.Session()
    user, password = settings.MONAI_LABEL_DICOMWEB_USERNAME, settings.MONAI_LABEL_DICOMWEB_PASSWORD
    if user and password and _GOOGLE not in url:
        session.auth = (user, password)
    # A store may close an idle connection, which shows when the next request fails: it is sent again.
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
    """Adds a time limit to each request, and sends wildcards as Orthanc reads them."""

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        options["timeout"] = options.get("timeout") or (_CONNECT_S, _SILENT_S)
        # Orthanc 1.10 does not decode a percent-encoded asterisk.
        request.url = (request.url or "").replace("%2A", "*")
        return super().send(request, *args, **options)
