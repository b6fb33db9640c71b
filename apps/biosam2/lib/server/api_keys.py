"""API keys of a small lab: a file with a name, a role and the SHA-256 hash of each key.

    python -m lib.server.api_keys FILE NAME ROLE

makes a key, prints it once and appends its hash to the file. Keys are 256 random bits, so a fast hash is
safe.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import logging
import os
import re
import secrets
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

import jwt
from monailabel.config import settings

from lib.errors import SettingsError

logger = logging.getLogger(__name__)

# A working day; the login page asks again afterwards.
COOKIE_LIFETIME_S = 12 * 3600
_NAME = re.compile(r"[\w.@-]{1,64}")
_HASH = re.compile(r"[0-9a-f]{64}")


class Role(IntEnum):
    """Roles in ascending order; each may do what those before it may do."""

    USER = 1
    ANNOTATOR = 2
    REVIEWER = 3
    ADMIN = 4

    @property
    def monailabel_name(self) -> str:
        """Name of the role in tokens, from MONAI Label's settings (``MONAI_LABEL_AUTH_ROLE_...``)."""
        return str(getattr(settings, f"MONAI_LABEL_AUTH_ROLE_{self.name}"))


ROLES = tuple(role.name.lower() for role in Role)


@dataclass(frozen=True)
class User:
    """Sender of a request.

    Attributes:
        name: Name in the log and in the info of images and labels.
        role: Highest role.
    """

    name: str
    role: Role


class ApiKeys:
    """The keys of a file, read again whenever the file changes.

    Args:
        path: File with one ``NAME ROLE SHA256`` a line; ``#`` starts a comment.

    Raises:
        SettingsError: The file cannot be read, or a line of it is wrong.
    """

    def __init__(self, path: Path):
        self._path = path
        self._lock = threading.Lock()
        self._users = read_keys(path)
        self._modified = self._stamp()

    def find(self, key: str) -> User | None:
        """The owner of a key; compares with every entry, each in constant time."""
        digest = hash_of(key)
        found = [user for known, user in self._current().items() if hmac.compare_digest(known, digest)]
        return found[0] if found else None

    def to_cookie(self, key: str) -> str | None:
        """A signed cookie for the owner of a key, valid for 12 hours; None for an unknown key.

        The signature is made with the key's hash, so removing the key from the file ends the session.
        """
        if (found := self.find(key)) is None:
            return None
        payload = {"sub": found.name, "exp": int(time.time()) + COOKIE_LIFETIME_S}
        return jwt.encode(payload, hash_of(key), algorithm="HS256")

    def from_cookie(self, cookie: str) -> User | None:
        """The owner of a cookie; None for a cookie that was not made here, or has expired."""
        for digest, user in self._current().items():
            try:
                options: Any = {"require": ["exp", "sub"]}
                payload = jwt.decode(cookie, digest, algorithms=["HS256"], options=options)
            except jwt.InvalidTokenError:
                continue
            if payload["sub"] == user.name:
                return user
        return None

    def _current(self) -> Mapping[bytes, User]:
        with self._lock:
            if (stamp := self._stamp()) != self._modified:
                self._modified = stamp
                try:
                    self._users = read_keys(self._path)
                    logger.info("Read %d API keys", len(self._users))
                except SettingsError as error:
                    logger.error("The API keys stay as they were: %s", error)
            return self._users

    def _stamp(self) -> tuple[int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size


def hash_of(key: str) -> bytes:
    """SHA-256 of a key."""
    return hashlib.sha256(key.encode(errors="replace")).digest()


def read_keys(path: Path) -> dict[bytes, User]:
    """The owners in a file of keys, by the SHA-256 of each key.

    Raises:
        SettingsError: The file cannot be read, or a line of it is wrong.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = f"--conf api_keys {path}: cannot be read ({error}); make api-key creates it"
        raise SettingsError(reason) from None
    users: dict[bytes, User] = {}
    for number, line in enumerate(lines, start=1):
        fields, place = line.partition("#")[0].split(), f"--conf api_keys {path}, line {number}"
        if not fields:
            continue
        if len(fields) != 3 or fields[1] not in ROLES or not _HASH.fullmatch(fields[2]):
            raise SettingsError(f"{place}: must be NAME ROLE SHA256, where ROLE is {' or '.join(ROLES)}")
        if any(user.name == fields[0] for user in users.values()):
            raise SettingsError(f"{place}: {fields[0]} stands there twice")
        users[bytes.fromhex(fields[2])] = User(fields[0], Role[fields[1].upper()])
    return users


def add_key(path: Path, name: str, role: str) -> str:
    """Makes a key and appends its hash to a file, which only its owner can read.

    Args:
        path: File of keys; created where there is none.
        name: Letters, digits and ``_.@-``; at most 64.
        role: ``user``, ``annotator``, ``reviewer`` or ``admin``.

    Returns:
        The key. It is stored nowhere.

    Raises:
        SettingsError: The name or role is wrong, or the name has a key already.
    """
    if not _NAME.fullmatch(name):
        raise SettingsError(f"the name {name!r} must be 1 to 64 letters, digits or _.@-")
    if role not in ROLES:
        raise SettingsError(f"unknown role {role!r} (available: {', '.join(ROLES)})")
    if path.exists() and any(user.name == name for user in read_keys(path).values()):
        raise SettingsError(f"{name} has a key already: remove its line from {path} first")
    key = f"biosam2_{secrets.token_urlsafe(32)}"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "a", encoding="utf-8") as file:
        file.write(f"{name} {role} {hash_of(key).hex()}\n")
    return key


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: makes a key and prints it."""
    parser = argparse.ArgumentParser(prog="python -m lib.server.api_keys", description="Make an API key.")
    parser.add_argument("file", type=Path, help="file of keys, for --conf api_keys")
    parser.add_argument("name", help="name in the log and in the labels' info")
    parser.add_argument("role", help=" or ".join(ROLES))
    options = parser.parse_args(arguments)
    try:
        key = add_key(options.file, options.name, options.role)
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{key}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
