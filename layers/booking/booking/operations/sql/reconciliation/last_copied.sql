-- The newest entry of a gateway's book that has been copied: the remembered position. No row before the first.
select seq, key, kind from book_entry where gateway = cast(:gateway as text) order by seq desc limit 1
