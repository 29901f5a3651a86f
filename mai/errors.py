"""Every error that MAI raises on purpose.

    MaiError
    |-- UsageError            wrong use: an option, a value, a name (exit code 2)
    |   |-- ConfigError       a recipe or settings file has a wrong key or value
    |   `-- UnknownNameError  no detector, architecture, recipe ... of that name; names the nearest
    |-- MissingExtraError     a package of an extra is not installed; says which `pip install` to run (exit code 2)
    |-- ImageError            one image cannot be judged; carries its status
    |-- DataError             a labelled set cannot be used
    |-- WeightsError          weights are missing, damaged or of another kind
    `-- TrainingError         training cannot start or cannot go on

Messages are for the person who meets them: what happened, the value, the next step.
"""

from __future__ import annotations

import difflib
import importlib
import os
import shlex
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mai.types import Status


class MaiError(Exception):
    """Base of all errors that MAI raises on purpose."""


class UsageError(MaiError):
    """Wrong use: an option, a value or a combination that cannot be."""


class ConfigError(UsageError):
    """A recipe or settings file has a wrong key or value."""


class UnknownNameError(UsageError):
    """No thing of that kind has that name."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.kind, self.name, self.known = kind, name, sorted(known)
        near = difflib.get_close_matches(name, self.known, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        be = "are" if kind.endswith("s") else "is"
        super().__init__(
            f"There {be} no {kind} named '{name}'.{hint} Known: {', '.join(self.known) or 'none'}."
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return (UnknownNameError, (self.kind, self.name, self.known))


def pip() -> str:
    """How pip is called for the Python that runs this: in a virtual environment by its own name.

    The shell's `pip` may be that of the system, where an environment is used without being activated.
    """
    if sys.prefix == sys.base_prefix or not sys.executable:
        return "pip"
    own = shlex.quote(sys.executable) if os.name == "posix" else f'"{sys.executable}"'
    return f"{own} -m pip"


class MissingExtraError(MaiError):
    """A package that an extra brings is not installed.

    Attributes:
        package: what is missing.
        extra: what brings it.
        plain: the sentence without a path of this machine, for rows that go elsewhere.
    """

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        self.package, self.extra = package, extra
        told = f"{purpose} needs the package '{package}', which is not installed. Run: "
        install = f"install 'mai-identifier[{extra}]'"
        self.plain = f"{told}pip {install}"
        super().__init__(f"{told}{pip()} {install}")
        self._made_of = (package, extra, purpose)

    def __reduce__(self) -> tuple[Any, ...]:
        return (MissingExtraError, self._made_of)


class ImageError(MaiError):
    """One image cannot be judged. The scan goes on; the status stands in its record."""

    def __init__(self, status: Status, message: str) -> None:
        self.status: Status = status
        super().__init__(message)

    def __reduce__(self) -> tuple[Any, ...]:
        return (ImageError, (self.status, str(self)))


class DataError(MaiError):
    """A labelled set cannot be used: no labels, one class only, files missing."""


class WeightsError(MaiError):
    """Weights are missing, damaged (hash mismatch) or of another architecture."""


class TrainingError(MaiError):
    """Training cannot start or cannot go on."""


def require(package: str, extra: str, purpose: str) -> Any:
    """Import `package` or raise MissingExtraError that says which extra brings it.

    Args:
        package: module name, dotted names allowed (`sklearn.metrics`).
        extra: the extra of mai-identifier that brings it.
        purpose: start of the sentence, e.g. `Training`.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name and not (package == error.name or package.startswith(error.name + ".")):
            raise
        raise MissingExtraError(package.split(".", maxsplit=1)[0], extra, purpose) from error
