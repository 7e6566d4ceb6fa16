"""Addresses of Postgres: what a URL says, and what is refused."""

import pytest

from booking.platform.postgres_urls import DatabaseUrl, parse_database_url


@pytest.mark.parametrize(
    ("url", "means"),
    [
        ("postgresql://u:p@h:7000/d", DatabaseUrl("u", "p", (("h", 7000),), "d")),
        ("postgres://u@h/d", DatabaseUrl("u", "", (("h", 5432),), "d")),
        ("postgresql://h/d", DatabaseUrl("", "", (("h", 5432),), "d")),
        ("postgresql://u%40x:p%3A%2F%40@h/d%20e", DatabaseUrl("u@x", "p:/@", (("h", 5432),), "d e")),
        (
            "postgresql://u:p@a:1,b,[::1]:3/d",
            DatabaseUrl("u", "p", (("a", 1), ("b", 5432), ("::1", 3)), "d"),
        ),
    ],
)
def test_what_a_url_says(url: str, means: DatabaseUrl) -> None:
    assert parse_database_url(url) == means


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "must be postgresql://"),
        ("x", "must be postgresql://"),
        ("mysql://u:p@h/d", "must be postgresql://"),
        ("postgresql://u:p@/d", "must be postgresql://"),
        ("postgresql://u:p@h", "must be postgresql://"),
        ("postgresql://u:p@h/", "must be postgresql://"),
        ("postgresql://u:p@h/d?sslmode=require", "no options"),
        ("postgresql://u:p@h/d/e", "nothing else"),
        ("postgresql://u:p@a:99999/d", "not host:port"),
        ("postgresql://u:p@a:port/d", "not host:port"),
        ("postgresql://u:p@a,,b/d", "not host:port"),
        ("postgresql://u:p@a,b:5432,a:5432/d", "twice"),
    ],
)
def test_what_is_refused(url: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_database_url(url)


def test_a_refusal_names_the_form_and_hides_the_password() -> None:
    with pytest.raises(ValueError, match=r"postgresql://user:password@host:port,?.*standbys") as refused:
        parse_database_url("postgresql://u:hush@a:port/d")

    assert "hush" not in str(refused.value)


@pytest.mark.parametrize(
    ("nth", "server"),
    [(0, "postgresql://u%40x:p%3A@10.0.0.7:7000/d"), (1, "postgresql://u%40x:p%3A@[::1]:5432/d")],
)
def test_the_url_of_one_server_keeps_what_holds_for_all(nth: int, server: str) -> None:
    url = parse_database_url("postgresql://u%40x:p%3A@10.0.0.7:7000,[::1]/d")

    assert url.server_url(url.hosts[nth]) == server
    assert parse_database_url(server) == DatabaseUrl("u@x", "p:", (url.hosts[nth],), "d")
