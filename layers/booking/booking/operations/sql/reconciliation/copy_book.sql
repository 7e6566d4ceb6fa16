-- Copy entries of a gateway's book; those that are there already stay as they are. A row for each that is new.
insert into book_entry (gateway, seq, kind, key, order_id, amount, currency, at)
select cast(:gateway as text), e.seq, e.kind, e.key, e.order_id, e.amount, e.currency, e.at
from json_to_recordset(cast(:entries as json)) as e(
    seq bigint, kind text, key text, order_id text, amount bigint, currency text, at timestamptz)
on conflict (gateway, seq) do nothing
returning 1
