"""Who leads a background loop."""

from booking.platform.loops import Lease

_ASKED_AFTER_S = """
select (select setting::int from pg_settings where name = 'tcp_keepalives_idle')
     + (select setting::int from pg_settings where name = 'tcp_keepalives_interval')
       * (select setting::int from pg_settings where name = 'tcp_keepalives_count')
"""


def test_a_leader_whose_machine_has_vanished_leads_no_longer_than_seconds() -> None:
    """Its connection never ends, so the server has to ask after it. Until then no other run leads, and who looks at a
    pending payment leaves it to the job."""
    lease = Lease("vanished")
    try:
        assert lease.held()
        assert 0 < lease._server.value(_ASKED_AFTER_S) <= 15
    finally:
        lease.release()
