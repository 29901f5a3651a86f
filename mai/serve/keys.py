"""Keys that let programs and people in: made here, shown once, kept as hashes.

    FILE      one line a key: NAME SHA256 DATE; a line that is deleted is a key that is revoked

A key is 32 random bytes, so a plain hash cannot be guessed back, and needs no salt or stretching as a password does.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import time
from datetime import UTC, datetime
from pathlib import Path

from mai.errors import UsageError

PREFIX = "mai_"
"""Start of every key, so that scanners for leaked secrets know one."""

LOOK_AGAIN_S = 1.0
"""Seconds after which the file is looked at again: a revoked key is refused as soon."""

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


def make(file: Path, name: str) -> str:
    """Make a key, append its hash to the file (readable by its owner alone), and return the key.

    Raises:
        UsageError: the name is none, or is taken; the file cannot be written.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"A key's name is 1 to 64 letters, digits, dots, dashes or underlines, not '{name}'."
        )
    key = PREFIX + secrets.token_urlsafe(32)
    try:
        if file.exists() and name in _read(file).values():
            raise UsageError(
                f"{file} has a key named '{name}'. Delete its line to revoke it, or choose another name."
            )
        handle = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(handle, "a", encoding="utf-8") as stream:
            # An editor may have left the last line without its end.
            start = "" if file.read_bytes()[-1:] in (b"", b"\n") else "\n"
            stream.write(f"{start}{name} {_hash(key)} {datetime.now(UTC):%Y-%m-%d}\n")
    except OSError as error:
        raise UsageError(f"The key file {file} cannot be written: {error.strerror}.") from error
    return key


class Keys:
    """The keys of a file; the file may change while the service runs.

    Raises:
        UsageError: the file is missing, holds no key, or a line that is none.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._names = _read(file)
        self._stamp = _stamp(file)
        self._looked = time.monotonic()
        if not self._names:
            raise UsageError(f"{file} holds no key. Make one: mai serve --keys {file} --new-key NAME")

    def owner(self, key: str) -> str | None:
        """The name of a key, None if nobody has it. Takes as long whatever the key is like."""
        self._look_again()
        given = _hash(key)
        found = None
        for known, name in self._names.items():
            if hmac.compare_digest(known, given):
                found = name
        return found

    def _look_again(self) -> None:
        now = time.monotonic()
        if now - self._looked < LOOK_AGAIN_S:
            return
        self._looked = now
        stamp = _stamp(self._file)
        if stamp != self._stamp:
            try:
                self._names = _read(self._file)
            except UsageError:
                self._names = {}  # a file that is gone or damaged lets nobody in
            self._stamp = stamp


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def _stamp(file: Path) -> tuple[int, int, int]:
    try:
        facts = file.stat()
    except OSError:
        return (0, 0, 0)
    return (facts.st_mtime_ns, facts.st_size, facts.st_ino)


def _read(file: Path) -> dict[str, str]:
    """Hash -> name."""
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not text"
        raise UsageError(
            f"The key file {file} cannot be read: {why}. mai serve --keys {file} --new-key NAME makes one."
        ) from error
    names: dict[str, str] = {}
    for number, text in enumerate(lines, 1):
        if not text.strip() or text.startswith("#"):
            continue
        words = text.split()
        if len(words) < 2 or not _NAME.fullmatch(words[0]) or not re.fullmatch(r"[0-9a-f]{64}", words[1]):
            raise UsageError(f"{file}, line {number}: a line is NAME SHA256 DATE, as --new-key writes it.")
        names[words[1]] = words[0]
    return names
