import math
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.policy import Policy
from schemas.taxonomy import Category, Decision, Severity
from workers.policy import policy as policy_module
from workers.policy.document import InvalidPolicy, parse, parse_stored, parse_yaml
from workers.policy.policy import MAX_TABLE, CompiledPolicy, default_strict
from workers.policy.presets import PRESETS

STRICTNESS = ["allow", "review", "block"]


def assessment(
    severity: str, *categories: str, score: float = 0.9, category_scores: dict[str, float] | None = None
) -> dict[str, Any]:
    return {
        "severity": severity,
        "categories": list(categories),
        "scores": {"safe": 0.0, "controversial": 0.0, "unsafe": 0.0, severity.lower(): score},
        "category_scores": dict.fromkeys(categories, score) if category_scores is None else category_scores,
    }


def policy(**fields: Any) -> CompiledPolicy:
    return CompiledPolicy(parse("acme", fields))


def test_a_tenant_without_a_policy_gets_the_strict_default() -> None:
    default = default_strict()
    assert (default.id, default.version, default.on_unavailable) == ("default-strict", 0, "review")
    assert default.decide(assessment("Safe"), surface="chat") == ("allow", ())
    assert default.decide(assessment("Controversial"), surface="chat") == ("block", ("controversial",))
    assert default.decide(assessment("Unsafe", "Violent"), surface="chat") == ("block", ("unsafe:Violent",))


def test_the_first_rule_that_matches_decides_and_the_strictest_category_wins() -> None:
    rules = [
        {"categories": ["PII"], "decision": "allow"},
        {"categories": ["PII", "Violent"], "decision": "review"},
    ]
    compiled = policy(rules=rules)
    assert compiled.decide(assessment("Unsafe", "PII"), surface="chat") == ("allow", ("unsafe:PII",))
    assert compiled.decide(assessment("Unsafe", "PII", "Violent"), surface="chat") == ("review", ("unsafe:Violent",))
    assert compiled.decide(assessment("Unsafe", "PII", "Jailbreak"), surface="chat") == ("block", ("unsafe:Jailbreak",))


@pytest.mark.parametrize("order", [("PII", "Violent"), ("Violent", "PII")])
def test_a_category_that_is_blocked_outweighs_one_for_review(order: tuple[str, str]) -> None:
    compiled = policy(rules=[{"categories": ["PII"], "decision": "review"}])
    assert compiled.decide(assessment("Unsafe", *order), surface="chat") == ("block", ("unsafe:Violent",))


@pytest.mark.parametrize(("on_unavailable", "decision"), [("hold", "review"), ("review", "review"), ("block", "block")])
def test_the_policy_decides_an_event_that_could_not_be_judged(on_unavailable: str, decision: str) -> None:
    compiled = policy(on_unavailable=on_unavailable, safe="allow")
    assert compiled.decide(None, surface="chat") == (decision, ("unavailable",))


@pytest.mark.parametrize(
    ("condition", "matching", "other"),
    [
        ({"surface": "chat"}, {"surface": "chat"}, {"surface": "comment"}),
        ({"role": "user"}, {"surface": "chat", "role": "user"}, {"surface": "chat", "role": "assistant"}),
        ({"language": "en"}, {"surface": "chat", "language": "EN-gb"}, {"surface": "chat", "language": "eng"}),
        ({"role": "user"}, {"surface": "chat"}, {"surface": "chat", "role": "assistant"}),
        ({"language": "en"}, {"surface": "chat", "language": "en"}, {"surface": "chat"}),
        ({"language": "zh-Hant"}, {"surface": "chat", "language": "zh-hant-TW"}, {"surface": "chat", "language": "zh"}),
    ],
)
@pytest.mark.parametrize("others", [[], [{"severity": "Safe", "min_score": 1, "decision": "review"}]])
def test_a_rule_holds_only_under_its_conditions_with_and_without_a_threshold_elsewhere(
    condition: dict[str, str], matching: dict[str, Any], other: dict[str, Any], others: list[dict[str, Any]]
) -> None:
    compiled = policy(rules=[{**condition, "decision": "review"}, *others])
    assert compiled.decide(assessment("Unsafe"), **matching)[0] == "review"
    assert compiled.decide(assessment("Unsafe"), **other)[0] == "block"


def test_a_threshold_reads_the_category_or_the_severity() -> None:
    compiled = policy(
        rules=[
            {"categories": ["PII"], "min_score": 0.8, "decision": "review"},
            {"severity": "Safe", "min_score": 0.5, "decision": "allow"},
            {"severity": "Safe", "decision": "review"},
        ]
    )
    assert compiled.decide(assessment("Unsafe", "PII", score=0.8), surface="chat")[0] == "review"
    assert compiled.decide(assessment("Unsafe", "PII", score=0.79), surface="chat")[0] == "block"
    assert compiled.decide(assessment("Safe", score=0.5), surface="chat") == ("allow", ())
    assert compiled.decide(assessment("Safe", score=0.4), surface="chat") == ("review", ("safe",))


def test_a_rule_for_a_language_holds_for_a_region_that_another_rule_names() -> None:
    compiled = policy(
        rules=[
            {"language": "en", "severity": "Unsafe", "decision": "review"},
            {"language": "en-GB", "severity": "Safe", "decision": "block"},
        ]
    )
    assert compiled.decide(assessment("Unsafe"), surface="chat", language="en-GB")[0] == "review"
    assert compiled.decide(assessment("Safe"), surface="chat", language="en-GB")[0] == "block"
    assert compiled.decide(assessment("Safe"), surface="chat", language="en")[0] == "allow"


def test_a_threshold_without_categories_reads_the_severity_even_where_there_are_some() -> None:
    compiled = policy(rules=[{"severity": "Unsafe", "min_score": 0.5, "decision": "review"}])
    found = assessment("Unsafe", "PII", score=0.6, category_scores={"PII": 0.1})
    assert compiled.decide(found, surface="chat")[0] == "review"
    found = assessment("Unsafe", "PII", score=0.4, category_scores={"PII": 0.9})
    assert compiled.decide(found, surface="chat")[0] == "block"


@pytest.mark.parametrize(("min_score", "decision"), [(0.0, "review"), (0.01, "block")])
def test_a_category_without_a_score_meets_no_threshold_above_zero(min_score: float, decision: str) -> None:
    compiled = policy(rules=[{"categories": ["PII"], "min_score": min_score, "decision": "review"}])
    assert compiled.decide(assessment("Unsafe", "PII", category_scores={}), surface="chat")[0] == decision


@pytest.mark.parametrize("shared_cache", [True, False])
def test_the_document_says_whether_assessments_are_shared(shared_cache: bool) -> None:
    assert policy(shared_cache=shared_cache).shared_cache is shared_cache


def test_missing_fields_come_from_the_preset() -> None:
    compiled = policy(preset="health", controversial="allow", rules=[{"categories": ["PII"], "decision": "block"}])
    assert compiled.decide(assessment("Controversial"), surface="chat")[0] == "allow"
    assert compiled.decide(assessment("Unsafe", "PII"), surface="chat")[0] == "block"
    assert compiled.decide(assessment("Unsafe", "Suicide & Self-Harm"), surface="chat")[0] == "review"
    assert policy(preset="loose").decide(assessment("Controversial"), surface="chat")[0] == "allow"


@pytest.mark.parametrize("name", PRESETS)
def test_no_preset_allows_unjudged_events_or_unsafe_violence(name: str) -> None:
    compiled = CompiledPolicy(PRESETS[name])
    assert compiled.decide(None, surface="chat") == ("review", ("unavailable",))
    assert compiled.decide(assessment("Unsafe", "Violent"), surface="chat")[0] == "block"
    assert compiled.decide(assessment("Safe"), surface="chat") == ("allow", ())


def test_the_digest_covers_everything_that_decides() -> None:
    strict = policy(controversial="block")
    assert strict.digest == policy(version=9).digest == policy(preset="strict").digest
    assert strict.digest == CompiledPolicy(Policy(id="another")).digest
    assert strict.digest != policy(controversial="allow").digest
    assert strict.reference == {"id": "acme", "version": 0, "digest": strict.digest}


def test_the_digest_of_a_policy_is_the_same_in_every_release() -> None:
    """Verdicts outlive a release, and only the digest identifies the policy that decided them."""
    rules = [{"severity": "Unsafe", "categories": ["PII"], "language": "en", "min_score": 0.5, "decision": "review"}]
    assert policy(rules=rules, on_unavailable="hold", shared_cache=True).digest == "1570c696c1a89595"


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (
            {"rules": [{"decision": "block"}, {"decision": "block"}, {"categories": ["Spam"], "decision": "block"}]},
            "policy for tenant 'acme', rule 3: unknown category 'Spam' (one of: Violent, Non-violent Illegal Acts, ",
        ),
        ({"rules": [{"decision": "ban"}]}, "rule 1: unknown decision 'ban' (one of: allow, review, block)"),
        ({"rules": [{}]}, "rule 1: 'decision' is required"),
        ({"rules": [{"decision": "block", "catgories": ["PII"]}]}, "rule 1: unknown field 'catgories'"),
        ({"controversal": "allow"}, "policy for tenant 'acme': unknown field 'controversal'"),
        ({"on_unavailable": "allow"}, "unknown on_unavailable 'allow' (one of: hold, review, block)"),
        ({"preset": "lose"}, "unknown preset 'lose' (one of: strict, loose, social, "),
        ({"id": "other"}, "its id is 'other', and has to be 'acme'; it may be left out"),
        ({"rules": None}, "policy for tenant 'acme': rules: has to be a list"),
        ({"version": -1}, "version: has to be at least 0"),
        ({"rules": [3]}, "policy for tenant 'acme', rule 1: has to be an object of names and values"),
        (
            {"rules": [{"decision": "block"}, {"decision": "block", "min_strikes": 3}]},
            "policy for tenant 'acme', rule 2: min_strikes needs the field 'strikes', which says what counts; an empty",
        ),
        ({"rules": [{"decision": "block", "min_strikes": 0}], "strikes": {}}, "rule 1: min_strikes: has to be above 0"),
        ({"strikes": [1]}, "policy for tenant 'acme': strikes: has to be an object of names and values"),
        ({"strikes": {"halflife": 1}}, "policy for tenant 'acme': unknown field 'halflife' in strikes"),
        ({"strikes": {"window_hours": 0}}, "window_hours: has to be above 0"),
        ({"strikes": {"window_hours": 9e9}}, "window_hours: has to be at most 8784"),
        (
            {"strikes": {"window_hours": 1, "half_life_hours": 1}},
            "policy for tenant 'acme': window_hours and half_life_hours are both set: set one of the two",
        ),
        ({"strikes": {"weights": {"Unsafe": 1}}}, "policy for tenant 'acme': strikes.weights: has to be a list"),
        ({"strikes": {"weights": [{"weight": 1}, 3]}}, "weight 2: has to be an object of names and values"),
        ({"strikes": {"weights": [{"severity": "Unsafe"}]}}, "weight 1: 'weight' is required"),
        ({"strikes": {"weights": [{"weight": 1}, {"weight": -1}]}}, "weight 2: weight: has to be at least 0"),
        ({"strikes": {"weights": [{"weight": 1_001}]}}, "weight 1: weight: has to be at most 1000"),
        ({"strikes": {"weights": [{"weight": 1, "categories": []}]}}, "weight 1: categories: is empty"),
        (
            {"strikes": {"weights": [{"weight": 1, "categories": ["PII", "Spam"]}]}},
            "policy for tenant 'acme', weight 1: unknown category 'Spam' (one of: Violent, ",
        ),
        ({"strikes": {"weights": [{"weight": 1, "severity": "unsafe"}]}}, "weight 1: unknown severity 'unsafe' (one"),
        ({"strikes": {"thresholds": [{"at": 3}]}}, "threshold 1: 'name' is required"),
        ({"strikes": {"thresholds": [{"name": "", "at": 3}]}}, "threshold 1: name: is empty"),
        ({"strikes": {"thresholds": [{"name": "a", "at": math.inf}]}}, "threshold 1: at: has to be a finite number"),
        (
            {"strikes": {"thresholds": [{"name": "a", "at": 1}, {"name": "b", "at": 3, "clear_below": 4}]}},
            "policy for tenant 'acme', threshold 2: clear_below (4) must be at most at (3)",
        ),
        (
            {"strikes": {"thresholds": [{"name": "a", "at": 1}, {"name": "a", "at": 2}]}},
            "policy for tenant 'acme': thresholds: two of them have the same name",
        ),
        (
            {"strikes": {"thresholds": [{"name": f"t{at}", "at": at + 1} for at in range(17)]}},
            "policy for tenant 'acme': strikes.thresholds: has more than 16 items",
        ),
        ({"review": {"four_eyes": ["Spam"]}}, "policy for tenant 'acme': unknown category 'Spam' (one of: Violent, "),
    ],
)
def test_a_wrong_document_is_refused_with_a_sentence(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidPolicy) as caught:
        parse("acme", fields)
    assert sentence in str(caught.value)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"\xff", b'{"rules":' + b"[" * 900 + b"]" * 900 + b"}"])
def test_what_is_not_a_document_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidPolicy, match="policy for tenant 'acme'"):
        parse_stored("acme", text)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("controversial: allow\ncontroversial: block\n", "'controversial' stands there twice"),
        ("rules:\n- decision: block\n  decision: allow\n", "'decision' stands there twice"),
        ("rules: [", "policy for tenant 'acme': acme.yaml, line 1, column 9: "),
        ("- 1\n", "a policy is an object"),
        (
            "rules:\n- {language: no, decision: block}\n",
            "rule 1: language: has to be a text; YAML reads no and off as a truth value: put the word",
        ),
        ("safe: on\n", "unknown safe True .*; YAML reads yes and on as a truth value$"),
        ("on_unavailable: no\n", "unknown on_unavailable False .*; YAML reads no and off as a truth value$"),
    ],
)
def test_a_wrong_yaml_document_is_refused_with_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(InvalidPolicy, match=sentence):
        parse_yaml("acme", text, "acme.yaml")


def optional(values: list[str]) -> st.SearchStrategy[str | None]:
    return st.none() | st.sampled_from(values)


CATEGORIES = [category.value for category in Category][:3]
SEVERITIES = [severity.value for severity in Severity]
LANGUAGES = ["en", "EN-gb", "de", "en-", "-"]
decisions = st.sampled_from(list(Decision))
rules = st.fixed_dictionaries(
    {
        "severity": optional(SEVERITIES),
        "categories": st.none() | st.lists(st.sampled_from(CATEGORIES), min_size=1, max_size=3),
        "surface": optional(["chat", "comment"]),
        "role": optional(["user", "assistant"]),
        "language": optional(LANGUAGES),
        "min_score": st.none() | st.sampled_from([0.0, 0.5, 1.0]),
        "min_strikes": st.none() | st.sampled_from([0.5, 1.0, 3.0]),
        "decision": st.sampled_from(STRICTNESS),
    }
)
documents = st.fixed_dictionaries(
    {"safe": decisions, "controversial": decisions, "unsafe": decisions, "rules": st.lists(rules, max_size=4)}
)
assessments = st.builds(
    lambda severity, categories, score, category_scores: assessment(
        severity, *categories, score=score, category_scores=category_scores
    ),
    st.sampled_from(SEVERITIES),
    st.lists(st.sampled_from(CATEGORIES), max_size=3, unique=True),
    st.sampled_from([0.0, 0.4, 0.6, 1.0]),
    st.dictionaries(st.sampled_from(CATEGORIES), st.sampled_from([0.0, 0.4, 0.6, 1.0])),
)


def expected(
    document: dict[str, Any],
    found: dict[str, Any],
    surface: str,
    role: str,
    language: str | None,
    strikes: float | None,
) -> str:
    """The rule of `Policy`'s docstring, in the simplest form."""

    def matches(rule: dict[str, Any], category: str | None) -> bool:
        spoken, wanted = (language or "").lower(), (rule["language"] or "").lower()
        score = found["scores"][found["severity"].lower()]
        if rule["categories"]:
            score = found["category_scores"].get(category, 0)
        return (
            rule["severity"] in (None, found["severity"])
            and (rule["categories"] is None or category in rule["categories"])
            and rule["surface"] in (None, surface)
            and rule["role"] in (None, role)
            and (not wanted or spoken == wanted or spoken.startswith(wanted + "-"))
            and (rule["min_score"] is None or score >= rule["min_score"])
            and (rule["min_strikes"] is None or (strikes is not None and strikes >= rule["min_strikes"]))
        )

    found_decisions = [
        next(
            (rule["decision"] for rule in document["rules"] if matches(rule, category)),
            str(document[found["severity"].lower()]),
        )
        for category in found["categories"] or [None]
    ]
    return max(found_decisions, key=STRICTNESS.index)


@given(
    documents,
    st.lists(assessments, min_size=1, max_size=3),
    st.sampled_from(["chat", "comment"]),
    st.sampled_from(["user", "assistant"]),
    optional([*LANGUAGES, "en-GB-oed"]),
    st.lists(st.sampled_from([None, 0.0, 0.5, 0.9, 1.0, 50.0]), min_size=2, max_size=2),
)
def test_the_compiled_policy_decides_as_the_document_says(
    document: dict[str, Any],
    found: list[dict[str, Any]],
    surface: str,
    role: str,
    language: str | None,
    numbers: list[float | None],
) -> None:
    compiled = CompiledPolicy(Policy.model_validate({"id": "acme", **document}))
    for one, strikes in product(found * 2, numbers):
        decision, reasons = compiled.decide(one, surface=surface, role=role, language=language, strikes=strikes)
        assert decision == expected(document, one, surface, role, language, strikes)
        assert reasons or (decision, one["severity"]) == ("allow", "Safe")


def test_a_decision_is_cached_until_the_table_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_module, "MAX_TABLE", 2)
    compiled = default_strict()
    first = compiled.decide(assessment("Unsafe"), surface="chat")
    assert compiled.decide(assessment("Unsafe"), surface="chat") is first
    compiled.decide(assessment("Controversial"), surface="chat")
    assert compiled.decide(assessment("Unsafe"), surface="chat") is first
    compiled.decide(assessment("Safe"), surface="chat")
    assert len(compiled._table) == 1
    assert compiled.decide(assessment("Unsafe"), surface="chat") == first


def test_values_that_senders_choose_do_not_fill_the_memory() -> None:
    compiled = policy(rules=[{"language": "en", "decision": "review"}])
    for number in range(MAX_TABLE + 10):
        compiled.decide(assessment("Unsafe"), surface="chat", language=f"x{number}")
    assert len(compiled._table) == 1


class TestStrikes:
    RULES = (
        {"severity": "Controversial", "min_strikes": 3, "decision": "block"},
        {"severity": "Controversial", "min_strikes": 1.5, "decision": "review"},
    )

    def decided(self, strikes: float | None, *others: dict[str, Any]) -> str:
        compiled = policy(controversial="allow", rules=[*self.RULES, *others], strikes={})
        return compiled.decide(assessment("Controversial"), surface="chat", strikes=strikes)[0]

    @pytest.mark.parametrize(
        ("strikes", "decision"),
        [
            (None, "allow"),
            (0, "allow"),
            (1.49, "allow"),
            (1.5, "review"),
            (2.99, "review"),
            (3, "block"),
            (99, "block"),
        ],
    )
    @pytest.mark.parametrize("others", [[], [{"severity": "Safe", "min_score": 1, "decision": "review"}]])
    def test_a_rule_matches_from_its_number_of_strikes_on_and_never_without_one(
        self, strikes: float | None, decision: str, others: list[dict[str, Any]]
    ) -> None:
        assert self.decided(strikes, *others) == decision

    def test_a_cached_decision_never_serves_another_number_of_strikes(self) -> None:
        compiled = policy(controversial="allow", rules=[*self.RULES], strikes={})
        seen = [
            compiled.decide(assessment("Controversial"), surface="chat", strikes=strikes)[0]
            for strikes in (None, 3, 0, 2, 3, None, 1.4)
        ]
        assert seen == ["allow", "block", "allow", "review", "block", "allow", "allow"]

    @given(st.lists(st.none() | st.floats(0, 1e6), max_size=200))
    def test_the_cache_does_not_grow_with_the_numbers_of_strikes(self, numbers: list[float | None]) -> None:
        compiled = policy(controversial="allow", rules=[*self.RULES], strikes={})
        for strikes in numbers:
            compiled.decide(assessment("Controversial"), surface="chat", strikes=strikes)
        assert len(compiled._table) <= 3

    def test_strikes_change_nothing_if_the_event_could_not_be_judged(self) -> None:
        compiled = policy(rules=[{"min_strikes": 1, "decision": "block"}], strikes={})
        assert compiled.decide(None, surface="chat", strikes=9) == ("review", ("unavailable",))

    def test_a_policy_says_whether_a_rule_asks_for_strikes(self) -> None:
        assert policy(rules=[*self.RULES], strikes={}).uses_strikes
        assert not policy(strikes={}).uses_strikes
        assert policy().strikes is None
        assert not default_strict().uses_strikes

    def test_a_rule_without_min_strikes_and_the_section_leave_the_digest_of_before(self) -> None:
        """Verdicts of earlier versions name these digests."""
        assert policy().digest == "a27a499e0ef7fdb5"
        assert policy(rules=[{"decision": "review"}], strikes={}).digest == "16317ebdd4c4d411"
        assert policy(rules=[{"decision": "review", "min_strikes": 1}], strikes={}).digest != "16317ebdd4c4d411"
