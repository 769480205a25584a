from schemas.taxonomy import Category, Severity


def test_the_names_are_those_of_the_model() -> None:
    assert [severity.value for severity in Severity] == ["Safe", "Controversial", "Unsafe"]
    assert [category.value for category in Category] == [
        "Violent",
        "Non-violent Illegal Acts",
        "Sexual Content or Sexual Acts",
        "PII",
        "Suicide & Self-Harm",
        "Unethical Acts",
        "Politically Sensitive Topics",
        "Copyright Violation",
        "Jailbreak",
    ]
