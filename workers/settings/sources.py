"""Reads the settings: flags before environment variables before files that variables name before a YAML file.

Everything that is wrong is reported as one sentence that names the setting.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from itertools import groupby
from pathlib import Path
from typing import Any, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import (
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsError,
    YamlConfigSettingsSource,
)

from workers.errors import Misconfigured
from workers.refusals import in_words
from workers.settings import secret_files, yaml_text
from workers.settings.secret_files import PREFIX, SUFFIX, names_of
from workers.settings.sections import CONFIG_FILE_VARIABLE, Settings

OTHER_VARIABLES = {
    CONFIG_FILE_VARIABLE,
    "GUARDLINE_CACHE",
    "GUARDLINE_MAVEN_URL",
    "GUARDLINE_TEST_STACK",
    "GUARDLINE_TEST_NETWORK",
}
"""The variables that are not settings of a worker: all but the first belong to the embedded stack and to the tests."""

ENVIRONMENT = "environment"
"""The origin of what comes from a variable."""

TYPES = {"bool", "float", "int", "list[str]", "str"}
"""The last part of an error's place where several types are allowed: the type that the error is about."""

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
    except SettingsError:
        # Raised for an environment variable only.
        said = (
            f"{variable}: is not JSON; a list or map is JSON, as in {_example(variable)}" for variable in _unreadable()
        )
        raise Misconfigured("; ".join(said)) from None
    except ValidationError as error:
        places = origins()
        # One sentence for each setting: where several types are allowed, each has an error of its own.
        settings = groupby(error.errors(), key=_setting)
        raise Misconfigured("; ".join(_sentence(name, [*items], places) for (name, _), items in settings)) from None


def _setting(item: ErrorDetails) -> tuple[str, tuple[int | str, ...]]:
    """Tell settings apart: the name of each, and the place of a name that does not exist, also within a list."""
    return _name(item), item["loc"] if item["type"] == "extra_forbidden" else ()


def _name(item: ErrorDetails) -> str:
    """Return the name of the setting that an error is about: for a part of a list or map, that of the whole."""
    section: Any = Settings
    path: list[str] = []
    for part in item["loc"]:
        path.append(str(part))
        field = section.model_fields.get(str(part))
        section = None if field is None else field.annotation
        if not (isinstance(section, type) and issubclass(section, BaseModel)):
            break
    return ".".join(path) or "settings"


def _sentence(name: str, items: list[ErrorDetails], places: dict[str, str]) -> str:
    """Say what is wrong with a setting, and where it was written. It must not hold the value, which may be a secret."""
    item = items[0]
    place = item["loc"][name.count(".") + 1 :]
    said = in_words(item)
    if place and place[-1] in TYPES:
        place = place[:-1]
        types = [in_words(one).removeprefix("has to be ") for one in items if one["loc"][:-1] == item["loc"][:-1]]
        said = f"has to be {' or '.join(types)}"
    if item["type"] == "extra_forbidden":
        said = f"{name}: there is no such setting{_suggestion(name)}"
        if place:
            said = f"{name}{_part(place)}: there is no such setting in a section of this list"
    # What the sections themselves refuse names its setting already.
    elif item["type"] != "value_error" or (item["loc"] and not said.startswith(str(item["loc"][0]))):
        said = f"{name}{_part(place)}: {said}{yaml_text.quoting(item)}"
    return said + (f" (from {_place(name, places[name])})" if "." in name and name in places else "")


def _part(place: Sequence[int | str]) -> str:
    """Name a part of a map by its name, and a part of a list by its number and what is wrong in it."""
    if not place:
        return ""
    if isinstance(place[0], str):
        return f", {place[0]!r}"
    return f", number {place[0] + 1}" + "".join(f", {one}" for one in place[1:] if isinstance(one, str))


def _suggestion(name: str) -> str:
    section, _, own = name.rpartition(".")
    near = get_close_matches(
        own, [known.rpartition(".")[2] for known in names_of(Settings) if known.rpartition(".")[0] == section]
    )
    anywhere = [known for known in names_of(Settings) if known.rpartition(".")[2] == own]
    found = [f"{section}.{one}" for one in near] or anywhere
    return f"; did you mean {found[0]}?" if found else ""


def _place(name: str, origin: str) -> str:
    """Say where a setting was written, so that it can be found there."""
    if not origin.endswith(ENVIRONMENT):
        return f"the {origin}"
    variables = {variable.upper(): variable for variable in os.environ}
    parts = name.upper().split(".")
    wanted = ["GUARDLINE_" + "__".join(parts[:count]) for count in range(len(parts), 1, -1)]
    return next((f"the environment variable {variables[one]}" for one in wanted if one in variables), f"the {origin}")


def _check_file() -> None:
    """Refuse what the library would pass over without a word, or fail on without a sentence."""
    path = os.environ.get(CONFIG_FILE_VARIABLE)
    if not path:
        return
    if not Path(path).is_file():
        raise Misconfigured(f"{CONFIG_FILE_VARIABLE}: {path} is not a file")
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
            raise Misconfigured(f"{name}: {_no_section(str(name))} (from the file {path})")
        if not isinstance(section, dict):
            # Never what it holds instead: that may be a password.
            what = yaml_text.kind_of(section)
            raise Misconfigured(f"{name}: is a section, and has to hold settings, not {what} (from the file {path})")


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
            raise Misconfigured(
                f"{variable}: there is no such variable{_variable_near(name)}; a setting is GUARDLINE_SECTION__NAME, "
                "with two underscores"
            )
        if section.lower() not in Settings.model_fields:
            raise Misconfigured(f"{variable}: {_no_section(section.lower())}")


def _variable_near(name: str) -> str:
    """Suggest the variable of a setting whose underscores were written singly."""
    variables = {f"GUARDLINE_{known.replace('.', '_').upper()}": known for known in names_of(Settings)}
    near = get_close_matches(name, variables, n=1, cutoff=0.85)
    return f"; did you mean GUARDLINE_{variables[near[0]].replace('.', '__').upper()}?" if near else ""


def _no_section(name: str) -> str:
    section, _, rest = name.partition(".")
    if rest and section in Settings.model_fields:
        nested = rest.replace(".", ": {")
        return f"there is no such section; nest the names: `{section}: {{{nested}: ...}}{'}' * rest.count('.')}`"
    near = get_close_matches(name, Settings.model_fields)
    return (
        f"there is no such section; did you mean {near[0]}?"
        if near
        else (f"there is no such section (one of: {', '.join(Settings.model_fields)})")
    )


def _unreadable() -> Iterator[str]:
    """Return the variables that the library fails on when it reads each alone, or the file that it names."""
    files = secret_files.variables(Settings)
    sources = [(variable.name, variable.source(Settings)) for variable in files]
    for variable, value in os.environ.items():
        if variable not in (file.name for file in files):
            source = EnvSettingsSource(Settings)
            source.env_vars = {variable.lower(): value}
            sources.append((variable, source))
    for variable, source in sources:
        try:
            source()
        except SettingsError:
            yield variable


def _example(variable: str) -> str:
    """Return a list or a map as a variable holds it, whichever this variable's setting is."""
    annotation: Any = Settings
    for part in variable.upper().removeprefix(PREFIX).removesuffix(SUFFIX).lower().split("__"):
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            annotation = annotation.model_fields[part].annotation
    if get_origin(annotation) is list:
        return "GUARDLINE_TOPICS__INPUTS='[\"chat\"]'"
    return 'GUARDLINE_KAFKA__PROPERTIES=\'{"sasl.username": "guardline"}\''


def origins() -> dict[str, str]:
    """Say where each setting that is not a default came from: `{"kafka.group": "environment"}`.

    A map comes from all places that have a part of it: they are merged.
    """
    found: dict[str, str] = {}
    for origin, source in _sources():
        for name, is_map in _names(source()):
            found[name] = f"{found[name]}, {origin}" if is_map and name in found else origin
    if "kafka.property_files" in found:
        found["kafka.properties"] = ", ".join(filter(None, (found.get("kafka.properties"), "kafka.property_files")))
    return found


def _names(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, bool]]:
    """Return each name, and whether it is a map's."""
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
    sources += [(f"file {one.path}", one.source(Settings)) for one in secret_files.variables(Settings)]
    sources.append((ENVIRONMENT, secret_files.environment(Settings)))
    return sources
