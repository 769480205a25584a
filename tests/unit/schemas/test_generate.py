from schemas.generate import CONTRACTS, FOLDER, rendered


def test_every_contract_has_a_schema_file_and_no_other_file_is_left() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(rendered()) == {f"{name}.schema.json" for name in CONTRACTS}
