"""Reads settings and properties from files, as Docker and Kubernetes mount secrets.

`GUARDLINE_REDIS__URL_FILE` names a file that holds `redis.url`; each setting has such a variable. No sentence may quote
what a file holds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel
from pydantic_settings import BaseSettings, EnvSettingsSource

from workers.errors import Misconfigured

PREFIX, SUFFIX = "GUARDLINE_", "_FILE"


class FileVariable(NamedTuple):
    """A variable that names a file, the variable whose value the file holds, and the file."""

    name: str
    stands_for: str
    path: str

    def source(self, settings: type[BaseSettings]) -> EnvSettingsSource:
        """Return a source that reads the file as the value of the variable.

        Raises:
            Misconfigured: the file cannot be read, or is empty.
        """
        source = EnvSettingsSource(settings)
        try:
            source.env_vars = {self.stands_for.lower(): read(self.path)}
        except ValueError as error:
            raise Misconfigured(f"{self.name}: {error}") from None
        return source


def read(path: object) -> str:
    """Return the text of a file, without the line break at its end.

    Raises:
        ValueError: with a sentence. It quotes the path only if the path is absolute: another text may be the secret.
    """
    file = str(path)
    if not file.startswith("/"):
        raise ValueError("has to be the absolute path of a file, such as /run/secrets/password")
    try:
        text = Path(file).read_text(encoding="utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        raise ValueError(f"{file} is not UTF-8") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read {file}: {getattr(error, 'strerror', None) or 'is not a path'}") from None
    if not text:
        raise ValueError(f"{file} is empty")
    return text


def variables(settings: type[BaseSettings]) -> list[FileVariable]:
    """Return the variables of the environment that name files.

    Raises:
        Misconfigured: a setting is in a variable and in a file.
    """
    candidates = [name for name in os.environ if name.upper().startswith(PREFIX) and name.upper().endswith(SUFFIX)]
    if not candidates:
        return []
    known = {variable_of(name) for name in names_of(settings)}
    others = {name.upper(): name for name in os.environ}
    found = []
    for name in candidates:
        stands_for = name.upper().removesuffix(SUFFIX)
        if name.upper() in known or stands_for not in known:
            continue
        if stands_for in others:
            raise Misconfigured(f"{others[stands_for]} and {name} are both set: set one of the two")
        found.append(FileVariable(name, stands_for, os.environ[name]))
    return found


def environment(settings: type[BaseSettings]) -> EnvSettingsSource:
    """Return the source that reads all other variables."""
    source = EnvSettingsSource(settings)
    named = {variable.name.lower() for variable in variables(settings)}
    if named:
        source.env_vars = {name: value for name, value in source.env_vars.items() if name.lower() not in named}
    return source


def names_of(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Return the names of all settings, such as `kafka.group`."""
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from names_of(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def variable_of(name: str) -> str:
    """Return the variable of a setting."""
    return PREFIX + name.replace(".", "__").upper()
