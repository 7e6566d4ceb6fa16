"""Every minute, for a little over a minute: close lapsed holds and put their seats back, every five seconds."""

from booking import seats
from booking.platform.loops import run_loop


def handler(event, context):
    return run_loop("expire_holds", 5.0, seats.sweep)
