"""Settings and properties whose values are in files, as Docker and Kubernetes mount secrets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from workers.errors import Misconfigured
from workers.settings import load
from workers.settings.table import rows
from workers.shown import MASK

URL = "GUARDLINE_REDIS__URL_FILE"
FILES = "GUARDLINE_KAFKA__PROPERTY_FILES"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "secret"


def shown() -> dict[str, tuple[str, str]]:
    return {name: (value, origin) for name, value, origin in rows(load())}


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_file_stands_for_a_variable_and_loses_the_line_break_at_its_end(
    end: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_bytes(f"redis://:pw @h:1/0{end}".replace(" ", "%20").encode())
    monkeypatch.setenv(URL, str(file))
    assert load().redis.url.get_secret_value() == "redis://:pw%20@h:1/0"
    assert shown()["redis.url"] == (MASK, f"file {file}")


def test_a_file_holds_what_the_variable_would_hold(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text('["https://u:pw@a", "https://b"]')
    monkeypatch.setenv("GUARDLINE_GUARD__OPENAI__URLS_FILE", str(file))
    assert load().guard.openai.urls == ["https://u:pw@a", "https://b"]
    file.write_text("no json")
    with pytest.raises(Misconfigured, match=r"^GUARDLINE_GUARD__OPENAI__URLS_FILE: is not JSON"):
        load()


def test_a_file_is_weaker_than_the_environment_and_stronger_than_the_settings_file(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tmp_path / "guardline.yaml"
    settings.write_text("kafka: {group: from-yaml, properties: {client.rack: a, linger.ms: 1}}")
    monkeypatch.setenv("GUARDLINE_CONFIG", str(settings))
    file.write_text('{"linger.ms": 2, "sasl.password": "pw"}')
    monkeypatch.setenv("GUARDLINE_KAFKA__PROPERTIES_FILE", str(file))
    assert load().kafka.properties == {"client.rack": "a", "linger.ms": 2, "sasl.password": "pw"}
    assert shown()["kafka.properties"] == (
        str({"client.rack": "a", "linger.ms": 2, "sasl.password": MASK}),
        f"file {settings}, file {file}",
    )


def test_a_property_comes_from_a_file_of_its_own(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("pw/with=signs\n")
    monkeypatch.setenv(FILES, json.dumps({"sasl.password": str(file), "ssl.key.password": str(file)}))
    monkeypatch.setenv("GUARDLINE_KAFKA__PROPERTIES", '{"client.rack": "a"}')
    assert load().kafka.properties == {
        "client.rack": "a",
        "sasl.password": "pw/with=signs",
        "ssl.key.password": "pw/with=signs",
    }
    found = shown()
    masked = {"client.rack": "a", "sasl.password": MASK, "ssl.key.password": MASK}
    assert found["kafka.properties"] == (str(masked), "environment, kafka.property_files")
    assert str(file) in found["kafka.property_files"][0]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "cannot read {}: No such file"),
        (b"", "{} is empty"),
        (b"\n", "{} is empty"),
        (b"\xff", "{} is not UTF-8"),
    ],
)
def test_a_file_that_holds_no_secret_has_a_sentence(
    content: bytes | None, sentence: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if content is not None:
        file.write_bytes(content)
    said = sentence.format(file)
    monkeypatch.setenv(URL, str(file))
    with pytest.raises(Misconfigured, match=rf"^GUARDLINE_REDIS__URL_FILE: {said}"):
        load()
    monkeypatch.delenv(URL)
    monkeypatch.setenv(FILES, json.dumps({"sasl.password": str(file)}))
    with pytest.raises(Misconfigured, match=rf"kafka\.property_files: 'sasl\.password': {said}"):
        load()


def test_a_folder_and_a_relative_path_have_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URL, str(tmp_path))
    with pytest.raises(Misconfigured, match=rf"^{URL}: cannot read {tmp_path}: Is a directory"):
        load()
    monkeypatch.setenv(URL, "redis-url")
    with pytest.raises(Misconfigured, match=rf"^{URL}: has to be the absolute path of a file"):
        load()


def test_a_secret_in_two_places_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("redis://h:1/0")
    monkeypatch.setenv(URL, str(file))
    monkeypatch.setenv("GUARDLINE_REDIS__URL", "redis://h:2/0")
    with pytest.raises(Misconfigured, match=r"^GUARDLINE_REDIS__URL and GUARDLINE_REDIS__URL_FILE are both set"):
        load()
    monkeypatch.delenv("GUARDLINE_REDIS__URL")
    monkeypatch.setenv(FILES, json.dumps({"sasl.password": str(file)}))
    monkeypatch.setenv("GUARDLINE_KAFKA__PROPERTIES", '{"sasl.password": "pw"}')
    with pytest.raises(Misconfigured, match=r"kafka\.property_files: 'sasl\.password' is in kafka\.properties too"):
        load()


def test_a_setting_whose_name_ends_in_file_is_that_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUARDLINE_GUARD__OPENAI__CA_FILE", "ca.pem")
    assert load().guard.openai.ca_file == Path("ca.pem")


def test_a_mistyped_variable_that_names_a_file_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("redis://h:1/0")
    monkeypatch.setenv("GUARDLINE_REDIS__ULR_FILE", str(file))
    with pytest.raises(Misconfigured, match=r"redis\.ulr_file: there is no such setting"):
        load()
