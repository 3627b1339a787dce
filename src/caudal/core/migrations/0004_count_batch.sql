-- The ledger's side of a batch that is samples alone, all of them new: called in front of the COPY, in the one
-- message that is the whole transaction. What is late owes the rollups marks, and is turned away to the writer's
-- longer road, which makes them.
create procedure caudal.count_batch(by_writer text, tenants int[], messages_of bigint[], parts_of bigint[],
                                    first_at timestamptz, last_at timestamptz, number bigint, oldest bigint)
  language plpgsql as $$
begin
  if oldest < (caudal.rollup_edge())[1] then -- microseconds since 1970, both
    raise exception 'late samples' using errcode = 'CA001';
  end if;
  insert into caudal.ledger as l (day, tenant_id, writer, messages, received, stored, first_received, last_received, batch)
  select (now() at time zone 'UTC')::date, w.t, by_writer, w.m, w.p, w.p, first_at, last_at, number
  from unnest(tenants, messages_of, parts_of) as w(t, m, p)
  on conflict (day, tenant_id, writer) do update set
    messages = l.messages + excluded.messages, received = l.received + excluded.received,
    stored = l.stored + excluded.stored, last_received = greatest(l.last_received, excluded.last_received),
    last_committed = now(), batch = excluded.batch;
end $$;

revoke execute on procedure caudal.count_batch(text, int[], bigint[], bigint[], timestamptz, timestamptz, bigint, bigint)
  from public;
grant execute on procedure caudal.count_batch(text, int[], bigint[], bigint[], timestamptz, timestamptz, bigint, bigint)
  to caudal_ingest;
