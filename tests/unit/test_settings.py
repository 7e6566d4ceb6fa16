"""Settings: read once, all faults reported together."""

import pytest

from booking.platform.settings import SettingsError, load_settings

_NEEDED = {
    f"ENCORE_{name}": "x"
    for name in (
        "TOKEN_KEYS", "PERSON_SECRET", "DANAL_URL", "PAYCO_URL",
        "KAFKA_BOOTSTRAP_SERVERS",
    )
} | {f"ENCORE_{name}_REDIS_URL": "redis://redis.test:6379/0" for name in ("QUEUE", "LOCKS", "CACHE")} | {
    f"ENCORE_{name}_URL": "postgresql://encore@postgres.test/encore" for name in ("DATABASE", "REPLICA")
}  # fmt: skip


def test_defaults_are_safe() -> None:
    settings = load_settings(_NEEDED)

    assert settings.edge_trust == "authorizer"
    assert settings.hold_ttl_s == 300
    assert settings.hold_cap_s == 900


def test_every_fault_is_named_at_once() -> None:
    with pytest.raises(SettingsError) as refused:
        load_settings({"ENCORE_HOLD_TTL_S": "soon", "ENCORE_HOLD_CAP_S": "-1", "ENCORE_EDGE_TRUST": "nobody"})

    message = str(refused.value)
    for variable in (*_NEEDED, "ENCORE_HOLD_TTL_S", "ENCORE_HOLD_CAP_S", "ENCORE_EDGE_TRUST"):
        assert variable in message


def test_numbers_and_choices_are_read() -> None:
    settings = load_settings(
        _NEEDED | {"ENCORE_HOLD_TTL_S": "7", "ENCORE_CONNECT_TIMEOUT_S": "0.5", "ENCORE_EDGE_TRUST": "open"}
    )

    assert (settings.hold_ttl_s, settings.connect_timeout_s, settings.edge_trust) == (7, 0.5, "open")


def test_redis_urls_are_faults_like_all_others_and_their_passwords_are_not_shown() -> None:
    urls = {"QUEUE": "redis+guard://:hush@h:1/encore/0", "LOCKS": "h:6379", "CACHE": "redis+cluster://h:1,h:2"}

    with pytest.raises(SettingsError) as refused:
        load_settings(
            _NEEDED | {f"ENCORE_{name}_REDIS_URL": url for name, url in urls.items()} | {"ENCORE_HOLD_TTL_S": "x"}
        )

    message = str(refused.value)
    for said in (
        "ENCORE_QUEUE_REDIS_URL",
        "ENCORE_LOCKS_REDIS_URL",
        "redis+sentinel://",
        "redis+cluster://",
        "HOLD_TTL_S",
    ):
        assert said in message
    assert "ENCORE_CACHE_REDIS_URL" not in message
    assert "hush" not in message


def test_database_urls_are_faults_like_all_others_and_their_passwords_are_not_shown() -> None:
    with pytest.raises(SettingsError) as refused:
        load_settings(
            _NEEDED
            | {"ENCORE_DATABASE_URL": "postgresql://u:hush@h:1/d?x=1", "ENCORE_REPLICA_URL": "h:5432"}
            | {"ENCORE_HOLD_TTL_S": "x"}
        )

    message = str(refused.value)
    for said in ("ENCORE_DATABASE_URL", "ENCORE_REPLICA_URL", "host:port,host:port", "HOLD_TTL_S"):
        assert said in message
    assert "hush" not in message
