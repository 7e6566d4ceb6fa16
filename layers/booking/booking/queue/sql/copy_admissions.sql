-- Stores what the stream of one line says of its turns, one row a turn. The columns arrive as parallel arrays.
-- Safe to run twice, and with entries in any order: every column takes what is known, a pass only ever gets longer, and
-- an end that was stored first (a payment's own transaction writes one) stays.
insert into admission (pass_id, concert_id, person, epoch, number, place, entered_after, gate_change_id, admitted_at,
                       claimed_at, expires_at, ended_at, end_reason, ended_after)
select pass_id, cast(:concert_id as bigint), person, epoch, number, place, entered_after, gate_change_id,
       to_timestamp(admitted_us / 1e6), to_timestamp(claimed_us / 1e6), to_timestamp(expires_us / 1e6),
       to_timestamp(ended_us / 1e6), end_reason, ended_after
from unnest(cast(:pass_ids as text[]), cast(:persons as text[]), cast(:epochs as integer[]),
            cast(:numbers as bigint[]), cast(:places as bigint[]), cast(:entered_afters as bigint[]),
            cast(:gate_change_ids as bigint[]), cast(:admitteds_us as bigint[]), cast(:claimeds_us as bigint[]),
            cast(:expireds_us as bigint[]), cast(:endeds_us as bigint[]), cast(:end_reasons as text[]),
            cast(:ended_afters as bigint[]))
     as turn (pass_id, person, epoch, number, place, entered_after, gate_change_id, admitted_us, claimed_us,
              expires_us, ended_us, end_reason, ended_after)
on conflict (pass_id) do update set
    epoch = coalesce(admission.epoch, excluded.epoch),
    number = coalesce(admission.number, excluded.number),
    place = coalesce(admission.place, excluded.place),
    entered_after = coalesce(admission.entered_after, excluded.entered_after),
    gate_change_id = coalesce(admission.gate_change_id, excluded.gate_change_id),
    admitted_at = coalesce(admission.admitted_at, excluded.admitted_at),
    claimed_at = coalesce(admission.claimed_at, excluded.claimed_at),
    expires_at = greatest(admission.expires_at, excluded.expires_at),
    ended_at = coalesce(admission.ended_at, excluded.ended_at),
    end_reason = coalesce(admission.end_reason, excluded.end_reason),
    ended_after = coalesce(admission.ended_after, excluded.ended_after)
