-- The roles of the local stack. encore owns its database, sees the statistics and may end sessions that hold locks.
do $$
begin
    if not exists (select 1 from pg_roles where rolname = 'encore') then
        create role encore login;
        grant pg_monitor, pg_signal_backend to encore;
    end if;
    if not exists (select 1 from pg_roles where rolname = 'encore_replication') then
        create role encore_replication login replication;
        -- For pg_rewind, which brings a former primary back as a replica.
        grant execute on function pg_ls_dir(text, boolean, boolean) to encore_replication;
        grant execute on function pg_stat_file(text, boolean) to encore_replication;
        grant execute on function pg_read_binary_file(text) to encore_replication;
        grant execute on function pg_read_binary_file(text, bigint, bigint, boolean) to encore_replication;
    end if;
    alter role encore password :'database_password';
    alter role encore_replication password :'replication_password';
end
$$;
