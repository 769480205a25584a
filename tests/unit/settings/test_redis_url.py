"""The forms of `redis.url`."""

from __future__ import annotations

import re

import pytest

from workers.settings.redis_url import RedisServers, check, options_of, servers_of

SENTINELS = "redis+sentinel://u:p%2Fw@s1,s2:26380,[::1]/mine/3?sentinel_password=x%20y&socket_keepalive=true"


def test_sentinels_are_named_with_their_primary() -> None:
    assert servers_of(SENTINELS) == RedisServers(
        "sentinel",
        tuple(f"redis://u:p%2Fw@{host}/3?socket_keepalive=true" for host in ("s1:26379", "s2:26380", "[::1]:26379")),
        "mine",
        (("password", "x y"),),
    )
    options = options_of(servers_of(SENTINELS).urls[1])
    assert (options["host"], options["port"], options["db"], options["password"]) == ("s2", 26380, 3, "p/w")
    check(SENTINELS)


def test_nodes_of_a_cluster_are_named_and_may_use_tls() -> None:
    servers = servers_of("rediss+cluster://u:p@n1:7000,n2/0?ssl_check_hostname=false")
    assert servers.kind == "cluster"
    assert servers.urls == tuple(f"rediss://u:p@{host}/0?ssl_check_hostname=false" for host in ("n1:7000", "n2"))
    assert options_of(servers.urls[1]) == {
        "host": "n2",
        "port": 6379,
        "db": 0,
        "username": "u",
        "password": "p",
        "ssl": True,
        "ssl_check_hostname": False,
    }
    check("rediss+cluster://u:p@n1:7000,n2/0?ssl_check_hostname=false")


def test_every_other_url_is_one_redis() -> None:
    for url in ("redis://h:1/0", "unix:///run/redis.sock", "http://h"):
        assert servers_of(url) == RedisServers("single", (url,))


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("redis+sentinel://s1:26379", "does not name the primary after the hosts, as in redis+sentinel://"),
        ("redis+sentinel://s1:26379/", "does not name the primary"),
        ("redis+sentinel://s1,,s2/mine", "names no host, or an empty one"),
        ("redis+sentinel://s1:99999/mine", "has a port above 65535"),
        ("redis+sentinel://s1/mine/zero", "ends in what is not the number of a database"),
        ("redis+sentinel://u:pass/word@s1/mine", "has a `#`, or an `@` that is not the one before the hosts"),
        ("redis+sentinel://u:pass#word@s1/mine", "has a `#`, or an `@` that is not the one before the hosts"),
        ("redis+sentinel://u:pass@word@s1/mine", "has a `#`, or an `@` that is not the one before the hosts"),
        ("redis+sentinel://s1/mine?sentinel_pass=word", "an option for Sentinels other than sentinel_username"),
        ("redis+sentinel://s1/mine?pass-word=1", "has an option after the `?` that a connection to Redis does not"),
        ("redis+sentinel://s1/mine?decode_responses=true", "must not say how answers are decoded"),
        ("redis+cluster://n1,n2/1", "names a database, and a cluster has only one: leave it out"),
        ("redis+cluster://", "names no host"),
        ("redis+cluster://n1?sentinel_password=word", "an option for Sentinels"),
        ("redis+cluster://n1?retry_on_timeout=true", "has an option after the `?` that a connection to Redis does not"),
        *(
            (
                url,
                "has to begin with redis://, rediss://, unix://, redis+sentinel://, rediss+sentinel://, redis+cluster://",
            )
            for url in ("redis+other://n1", "redis-sentinel://a:1,b:2", "redis", "a:99999")
        ),
    ],
)
def test_a_wrong_url_has_a_sentence_without_a_piece_of_it(url: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)) as refused:
        check(url)
    assert "word" not in str(refused.value).replace("password", "")
