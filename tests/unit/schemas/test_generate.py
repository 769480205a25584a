import pytest

from schemas.generate import CONTRACTS, FOLDER, rendered


def test_every_contract_has_a_schema_file_and_no_other_file_is_left() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(rendered()) == {f"{name}.schema.json" for name in CONTRACTS}


@pytest.mark.parametrize("name", sorted(rendered()))
def test_a_schema_file_equals_its_model(name: str) -> None:
    assert (FOLDER / name).read_text(encoding="utf-8") == rendered()[name], "stale: run `python -m schemas.generate`"
