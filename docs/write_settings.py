"""Writes docs/settings.md from the settings model: ``python -m docs.write_settings``."""

from __future__ import annotations

from pathlib import Path

from lib.settings import Settings

PAGE = Path(__file__).resolve().parent / "settings.md"
_HEAD = """\
# Settings

Written by `make docs` from `apps/biosam2/lib/settings.py`. Each is a `--conf name value` of the server, or
`make serve CONF="name=value"`.

| name | default | allowed | meaning |
|---|---|---|---|
"""


def settings_page() -> str:
    """The page as Markdown."""
    rows = []
    for name, field in Settings.model_fields.items():
        extra = field.json_schema_extra
        allowed = extra["range"] if isinstance(extra, dict) else ""
        rows.append(f"| `{name}` | {_shown(field.default)} | {allowed} | {field.description} |")
    return _HEAD + "\n".join(rows) + "\n"


def _shown(value: object) -> str:
    if value is None or value == ():
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


if __name__ == "__main__":
    PAGE.write_text(settings_page(), encoding="utf-8")
