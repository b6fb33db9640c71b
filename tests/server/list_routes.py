"""Prints the routes of a server, one ``METHOD PATH`` a line: ``list_routes.py APP STUDIES MODELS``."""

from __future__ import annotations

import sys

from monailabel.config import settings

app_dir, studies, model_dir = sys.argv[1:4]
settings.MONAI_LABEL_APP_DIR = app_dir
settings.MONAI_LABEL_STUDIES = studies
settings.MONAI_LABEL_APP_CONF = {"model_dir": model_dir}
settings.MONAI_LABEL_AUTO_UPDATE_SCORING = False
sys.path.insert(0, app_dir)

from monailabel.app import app as server  # noqa: E402
from monailabel.interfaces.utils.app import app_instance  # noqa: E402

app_instance().on_init_complete()
for route in server.routes:
    for method in sorted(getattr(route, "methods", None) or {"MOUNT"}):
        print("ROUTE", method, route.path)  # noqa: T201
