"""Bounds about paying, judged by what people were told and by the payment firms' own books."""

from collections.abc import Collection

from artillery.results import STEPS
from drills.harness.books import charged_twice
from drills.harness.drill import Bound, no_failures, p95_within, slowest_within
from drills.harness.evidence import Evidence
from drills.harness.watch import CLOSED, FIRMS, OPEN, PENDING, circuit

PAY = "step7_pay"
OTHER_STEPS = tuple(step for step in STEPS if step != PAY)
_OTHERS_S, _OTHERS_P95_S = 2.4, 0.6
_BROKEN_S = 2.0
"""How long after its mark a break is surely there."""


def nobody_is_charged_twice() -> Bound:
    """As the firms' own books have it, whatever ours say."""

    def measure(seen: Evidence) -> float | None:
        return None if seen.books is None else float(len(charged_twice(seen.books)))

    return Bound("people charged twice, by the firms' books", "<=", 0, measure)


def charged_by(firm: str, count: int) -> Bound:
    """The firm has taken so many payments since the break."""

    def measure(seen: Evidence) -> float | None:
        if seen.books is None:
            return None
        return float(sum(one.firm == firm and one.kind == "charge" and seen.at_s(one.at) >= seen.broke_s
                         for one in seen.books))  # fmt: skip

    return Bound(f"payments taken by {firm} after the break", ">=", count, measure)


def taken_while_broken(firm: str, count: int) -> Bound:
    """The firm has taken so many payments while it was broken."""
    return Bound(f"payments taken by {firm} while it was broken", ">=", count, lambda seen: _taken(seen, (firm,)))


def nothing_taken_while_broken() -> Bound:
    """No firm takes anything while it is broken: felt where all are away."""
    return Bound("payments taken while it was broken", "<=", 0, lambda seen: _taken(seen, FIRMS))


def charged_by_both() -> Bound:
    """No reservation was charged by both firms, not even one after the other: a drill that is shorter than a payment's
    deadline has nothing cancelled, so the second firm is asked only where the first took nothing."""

    def measure(seen: Evidence) -> float | None:
        if seen.books is None:
            return None
        danal, payco = ({one.order_id for one in seen.books if one.firm == firm and one.kind == "charge"}
                        for firm in FIRMS)  # fmt: skip
        return float(len(danal & payco))

    return Bound("reservations charged by both firms", "<=", 0, measure)


def charges_again_within_of_heal(firm: str, seconds: float) -> Bound:
    """The firm takes payments again so soon after it is well."""

    def measure(seen: Evidence) -> float | None:
        healed_s = seen.moment("heal")
        if seen.books is None or healed_s is None:
            return None
        taken = (seen.at_s(one.at) for one in seen.books if one.firm == firm and one.kind == "charge")
        return min((at_s - healed_s for at_s in taken if at_s >= healed_s), default=None)

    return Bound(f"{firm} takes payments again, after it is whole", "<=", seconds, measure, "s")


def left_in_peace_after_heal(firm: str, seconds: float) -> Bound:
    """The firm that stood in takes no payment later than so long after the other is well."""

    def measure(seen: Evidence) -> float | None:
        healed_s = seen.moment("heal")
        if seen.books is None or healed_s is None:
            return None
        return float(sum(one.firm == firm and one.kind == "charge" and seen.at_s(one.at) > healed_s + seconds
                         for one in seen.books))  # fmt: skip

    return Bound(f"payments taken by {firm} later than {seconds:g} s after it is whole", "<=", 0, measure)


def nothing_is_given_back() -> Bound:
    """Who was charged keeps the seats: no charge was refunded."""

    def measure(seen: Evidence) -> float | None:
        if seen.books is None:
            return None
        return float(sum(one.kind == "refund" and seen.at_s(one.at) >= seen.broke_s for one in seen.books))

    return Bound("charges given back after the break", "<=", 0, measure)


def circuit_opened(firm: str) -> Bound:
    """Felt: charges are kept away from the firm."""
    return Bound(
        f"{firm}'s circuit opened (1)", ">=", OPEN, lambda seen: seen.most(circuit(firm, "charges"))
    )  # fmt: skip


def circuit_closed_within_of_heal(firm: str, seconds: float) -> Bound:
    """Charges reach the firm again, for good, so soon after it is well."""

    def measure(seen: Evidence) -> float | None:
        healed_s = seen.moment("heal")
        name = circuit(firm, "charges")
        closed_s = None if healed_s is None else seen.from_when(name, at_most=CLOSED, from_s=healed_s)
        return None if healed_s is None or closed_s is None else closed_s - healed_s

    return Bound(f"{firm}'s circuit closed again, after it is whole", "<=", seconds, measure, "s")


def pending_instead_of_error() -> Bound:
    """Step 7 answers 201 or 202 whatever the firms do."""
    return no_failures(PAY, name="7 pay")


def nobody_waits_for_a_firm(seconds: float) -> Bound:
    """No answer of step 7 takes longer, from the break to the end."""
    return slowest_within(seconds, PAY, name="7 pay")


def the_other_steps_go_on() -> list[Bound]:
    """A firm that is slow or away slows nothing but the payment itself.

    Who waited for a firm would wait for 2.5 s (``gateway_read_timeout_s``). A look at one's own pending payment gives
    it 0.4 s now and then (``gateway_glance_timeout_s``).
    """
    return [
        no_failures(*OTHER_STEPS, name="all other steps"),
        slowest_within(_OTHERS_S, *OTHER_STEPS, name="all other steps"),
        p95_within(_OTHERS_P95_S, *OTHER_STEPS, name="all other steps"),
    ]


def told_pending(count: int) -> Bound:
    """So many were told that the outcome of their payment is open."""
    return Bound("payments answered with pending (202) after the break", ">=", count, _pending)


def nobody_else_is_told_pending() -> Bound:
    """The other firm takes over within the same request.

    Whom the break met with the firm's answer on its way are told that the outcome is open, and rightly so.
    """

    def measure(seen: Evidence) -> float:
        return float(sum(answer.asked_s >= seen.broke_s + _BROKEN_S for answer in seen.pending_answers()))

    label = f"payments asked for later than {_BROKEN_S:g} s after the break and answered with pending (202)"
    return Bound(label, "<=", 0, measure)


def nothing_pending_within_of_heal(seconds: float) -> Bound:
    """The outcome of every payment is known so soon after the firms are well."""

    def measure(seen: Evidence) -> float | None:
        healed_s = seen.moment("heal")
        settled_s = None if healed_s is None else seen.from_when(PENDING, at_most=0, from_s=healed_s)
        return None if healed_s is None or settled_s is None else settled_s - healed_s

    return Bound("no payment pending any more, after it is whole", "<=", seconds, measure, "s")


def _pending(seen: Evidence) -> float:
    return float(sum(1 for _ in seen.pending_answers()))


def _taken(seen: Evidence, firms: Collection[str]) -> float | None:
    healed_s = seen.moment("heal")
    if seen.books is None or healed_s is None:
        return None
    # From a second after the break on: the firm first answers what it was asked before.
    taken = (seen.at_s(one.at) for one in seen.books if one.firm in firms and one.kind == "charge")
    return float(sum(seen.broke_s + _BROKEN_S <= at_s < healed_s for at_s in taken))
