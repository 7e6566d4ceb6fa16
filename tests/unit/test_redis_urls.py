"""Addresses of Redis: what each scheme says, and what is refused."""

import pytest

from booking.platform.redis_urls import RedisUrl, parse_redis_url


@pytest.mark.parametrize(
    ("url", "means"),
    [
        ("redis://h:7000/3", RedisUrl("single", "redis", "", (("h", 7000),), "", 3, "")),
        ("redis://h", RedisUrl("single", "redis", "", (("h", 6379),), "", 0, "")),
        ("rediss://u:p%40@h/0", RedisUrl("single", "rediss", "u:p%40", (("h", 6379),), "", 0, "")),
        ("redis://[::1]:7000/1", RedisUrl("single", "redis", "", (("::1", 7000),), "", 1, "")),
        (
            "redis+sentinel://:pw@a:1,b,c:3/encore/2",
            RedisUrl("sentinel", "redis", ":pw", (("a", 1), ("b", 26379), ("c", 3)), "encore", 2, ""),
        ),
        ("redis+sentinel://a/encore", RedisUrl("sentinel", "redis", "", (("a", 26379),), "encore", 0, "")),
        (
            "rediss+cluster://a:1,b/?ssl_ca_certs=/ca.pem",
            RedisUrl("cluster", "rediss", "", (("a", 1), ("b", 6379)), "", 0, "ssl_ca_certs=/ca.pem"),
        ),
        ("redis+cluster://a:1/0", RedisUrl("cluster", "redis", "", (("a", 1),), "", 0, "")),
    ],
)
def test_what_a_url_says(url: str, means: RedisUrl) -> None:
    assert parse_redis_url(url) == means


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "must be redis://"),
        ("h:6379", "must be redis://"),
        ("http://h", "must be redis://"),
        ("unix:///run/redis.sock", "must be redis://"),
        ("redis+guard://h/encore", "must be redis://"),
        ("redis://", "must be redis://"),
        ("redis://a:1,b:2/0", "several servers"),
        ("redis://h:99999/0", "not host:port"),
        ("redis://h:port/0", "not host:port"),
        ("redis+cluster://a:1,,b:2", "not host:port"),
        ("redis://h/first", "no number"),
        ("redis+sentinel://a:1,b:2", "does not name the service"),
        ("redis+sentinel://a:1//0", "does not name the service"),
        ("redis+sentinel://a:1/encore/first", "no number"),
        ("redis+cluster://a:1/1", "a cluster has but the first"),
        ("redis://h/0?socket_timeout=9", "options"),
    ],
)
def test_what_is_refused(url: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_redis_url(url)


def test_a_refusal_names_the_schemes_and_hides_the_password() -> None:
    with pytest.raises(ValueError, match=r"redis://.*redis\+sentinel://.*redis\+cluster://.*rediss") as refused:
        parse_redis_url("redis://user:hush@a:1,b:2/0")

    assert "hush" not in str(refused.value)


def test_the_url_of_one_server_keeps_what_holds_for_all() -> None:
    url = parse_redis_url("rediss+sentinel://u:p@a,b/encore/3?ssl_ca_certs=/ca.pem")

    assert url.server_url("10.0.0.7", 6380) == "rediss://u:p@10.0.0.7:6380/3?ssl_ca_certs=/ca.pem"
    assert url.server_url("::1", 6380) == "rediss://u:p@[::1]:6380/3?ssl_ca_certs=/ca.pem"
