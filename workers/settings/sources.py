"""Reads the settings: flags before environment variables before a YAML file before defaults.

Everything that is wrong is reported as one sentence that names the setting.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import (
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsError,
    YamlConfigSettingsSource,
)

from workers.errors import Misconfigured
from workers.settings import yaml_text
from workers.settings.sections import CONFIG_FILE_VARIABLE, Settings

OTHER_VARIABLES = {CONFIG_FILE_VARIABLE, "GUARDLINE_CACHE", "GUARDLINE_MAVEN_URL"}
"""What is no setting of a worker: the last two belong to the embedded stack."""

_SERVICE_LINK = re.compile(r"\w+_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")
_LINK_ADDRESS = re.compile(r"(tcp|udp|sctp)://.*")
"""Kubernetes puts variables of these shapes into each pod for each Service, so also for one called `guardline`."""


def load(**flags: Any) -> Settings:
    """Read the settings.

    Raises:
        Misconfigured: with one sentence for each wrong setting, naming it.
    """
    _check_file()
    _check_environment()
    try:
        return Settings(**flags)
    except SettingsError as error:
        # Raised for an environment variable only; the sentence of the library names the section, and no more.
        named = ", ".join(_unreadable()) or str(error)
        raise Misconfigured(
            f"{named}: is no JSON; a list or map is JSON, as in GUARDLINE_TOPICS__INPUTS='[\"chat\"]'"
        ) from None
    except ValidationError as error:
        raise Misconfigured("; ".join(_sentence(item) for item in error.errors())) from None


def _sentence(item: ErrorDetails) -> str:
    name = ".".join(str(part) for part in item["loc"]) or "settings"
    if item["type"] == "extra_forbidden":
        return f"{name}: no such setting"
    said = item["msg"].removeprefix("Value error, ")
    # What the sections themselves refuse names its setting already.
    names_itself = item["type"] == "value_error" and (not item["loc"] or said.startswith(str(item["loc"][0])))
    return said if names_itself else f"{name}: {said}"


def _check_file() -> None:
    """Refuse what the library would pass over without a word, or fail on without a sentence."""
    path = os.environ.get(CONFIG_FILE_VARIABLE)
    if not path:
        return
    if not Path(path).is_file():
        raise Misconfigured(f"{CONFIG_FILE_VARIABLE}: {path} is no file")
    try:
        document = yaml_text.parse(Path(path).read_text(encoding="utf-8"), f"{CONFIG_FILE_VARIABLE}: {path}")
    except OSError as error:
        raise Misconfigured(f"{CONFIG_FILE_VARIABLE}: cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise Misconfigured(f"{CONFIG_FILE_VARIABLE}: {path} is not UTF-8: {error}") from None
    if not isinstance(document, dict | None):
        raise Misconfigured(f"{CONFIG_FILE_VARIABLE}: {path} has to hold sections, such as: kafka: {{group: mine}}")
    for name, section in (document or {}).items():
        if name not in Settings.model_fields:
            raise Misconfigured(f"{name}: no such section (one of: {', '.join(Settings.model_fields)})")
        if not isinstance(section, dict):
            raise Misconfigured(f"{name}: is a section, and has to hold settings, not {section!r}")


def _check_environment() -> None:
    """Refuse a mistyped variable; the library looks only for those that it knows."""
    for variable, value in os.environ.items():
        name = variable.upper()
        if not name.startswith("GUARDLINE_") or name in OTHER_VARIABLES:
            continue
        section, nested, _ = name.removeprefix("GUARDLINE_").partition("__")
        if not nested:
            if _SERVICE_LINK.fullmatch(name) or (name.endswith("_PORT") and _LINK_ADDRESS.fullmatch(value)):
                continue
            raise Misconfigured(f"{variable}: no such variable: a setting is GUARDLINE_SECTION__NAME, two underscores")
        if section.lower() not in Settings.model_fields:
            raise Misconfigured(f"{variable}: no such section (one of: {', '.join(Settings.model_fields)})")


def _unreadable() -> Iterator[str]:
    """Give the variables that the library fails on when it reads each alone."""
    for variable, value in os.environ.items():
        source = EnvSettingsSource(Settings)
        source.env_vars = {variable.lower(): value}
        try:
            source()
        except SettingsError:
            yield variable


def origins() -> dict[str, str]:
    """Say where each setting that is not a default came from: `{"kafka.group": "environment"}`.

    A map comes from all places that have a part of it: they are merged.
    """
    found: dict[str, str] = {}
    for origin, source in _sources():
        for name, is_map in _names(source()):
            found[name] = f"{found[name]}, {origin}" if is_map and name in found else origin
    return found


def _names(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, bool]]:
    """Give each name, and whether it is a map's."""
    for name, value in values.items():
        yield f"{prefix}{name}", isinstance(value, dict)
        if isinstance(value, dict):
            yield from _names(value, f"{prefix}{name}.")


def _sources() -> list[tuple[str, PydanticBaseSettingsSource]]:
    """Weakest first."""
    path = os.environ.get(CONFIG_FILE_VARIABLE)
    sources: list[tuple[str, PydanticBaseSettingsSource]] = []
    if path:
        sources.append((f"file {path}", YamlConfigSettingsSource(Settings, yaml_file=Path(path))))
    sources.append(("environment", EnvSettingsSource(Settings)))
    return sources
