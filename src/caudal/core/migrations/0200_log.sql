-- The log: topics of partitions of records, each read by any number of consumer groups.
--
-- Offsets are handed out under the row lock of their partition, which the publisher holds until it commits.
-- So offsets are dense, a smaller one never becomes visible after a larger one, and a reader that goes by
-- "greater than the last I saw" misses nothing. Publishing comes last in a transaction to keep that lock short.

do $$
begin
  if not exists (select from pg_roles where rolname = 'caudal_messaging') then create role caudal_messaging nologin; end if;
exception when duplicate_object or unique_violation then null; -- two databases migrated at once
end $$;
grant usage on schema caudal, public to caudal_messaging;

create table caudal.log_topic (
  id smallint generated always as identity primary key,
  name text not null unique check (name ~ '^[a-zA-Z0-9._-]{1,200}$'),
  partitions smallint not null check (partitions between 1 and 1024)
);

-- One row a partition: small, hot, updated in place.
create table caudal.log_partition (
  topic_id smallint not null references caudal.log_topic,
  partition smallint not null,
  next_offset bigint not null default 0,
  primary key (topic_id, partition)
) with (fillfactor = 25, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);

create table caudal.log_record (
  topic_id smallint not null,
  partition smallint not null,
  "offset" bigint not null,
  published timestamptz not null default clock_timestamp(),
  key text not null,
  value bytea not null,
  primary key (topic_id, partition, "offset")
) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.1);

-- `committed` is the offset of the next record to process: everything below is done.
create table caudal.log_group (
  name text not null,
  topic_id smallint not null,
  partition smallint not null,
  committed bigint not null default 0,
  owner uuid,
  -- Grows with each change of hands: a consumer that lost its partition cannot commit with an old one.
  epoch bigint not null default 0,
  primary key (name, topic_id, partition),
  foreign key (topic_id, partition) references caudal.log_partition
) with (fillfactor = 25, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);

create table caudal.log_member (
  group_name text not null,
  member uuid not null,
  topics smallint[] not null,
  expires timestamptz not null,
  primary key (group_name, member)
);

create function caudal.log_ensure(p_name text, p_partitions int) returns smallint
  language plpgsql security definer set search_path = caudal, pg_catalog, pg_temp as $$
declare topic log_topic;
begin
  select * into topic from log_topic where name = p_name;
  if topic.id is null then
    insert into log_topic(name, partitions) values (p_name, p_partitions) on conflict (name) do nothing;
    select * into topic from log_topic where name = p_name;
  end if;
  insert into log_partition(topic_id, partition)
    select topic.id, n from generate_series(0, topic.partitions - 1) n on conflict do nothing;
  return topic.id;
end $$;

-- Append records in the order given; the caller's transaction decides whether they exist. Runs with its owner's
-- rights: who may publish may still not read what others published.
create function caudal.log_append(p_topic text, p_keys text[], p_values bytea[]) returns void
  language plpgsql security definer set search_path = caudal, pg_catalog, pg_temp set plan_cache_mode = force_generic_plan as $$
declare
  topic log_topic;
  bases bigint[];
  base bigint;
  part record;
begin
  if cardinality(p_keys) = 0 then return; end if;
  select * into topic from log_topic where name = p_topic;
  if topic.id is null then raise exception 'no such topic: %', p_topic using errcode = 'undefined_object'; end if;
  bases := array_fill(null::bigint, array[topic.partitions::int], array[0]);
  -- In order of partition, so that two publishers cannot hold what the other waits for.
  for part in
    select (hashtext(k) & 2147483647) % topic.partitions as n, count(*) as size from unnest(p_keys) k group by 1 order by 1
  loop
    update log_partition set next_offset = next_offset + part.size
      where topic_id = topic.id and partition = part.n returning next_offset - part.size into base;
    bases[part.n] := base;
  end loop;
  insert into log_record(topic_id, partition, "offset", key, value)
    select topic.id, r.n, bases[r.n] + row_number() over (partition by r.n order by r.ord) - 1, r.k, r.v
    from (select k, v, ord, (hashtext(k) & 2147483647) % topic.partitions as n
          from unnest(p_keys, p_values) with ordinality as item(k, v, ord)) r;
end $$;

-- A member says that it lives, gives back what it has drained, and learns what it owns.
-- Every member computes the same assignment from the same list of the living, so nobody needs to lead.
create function caudal.log_heartbeat(
  p_group text, p_member uuid, p_topics smallint[], p_lease interval, p_released_topics smallint[], p_released smallint[]
) returns table (topic_id smallint, partition smallint, committed bigint, epoch bigint, keep boolean)
  language plpgsql security definer set search_path = caudal, pg_catalog, pg_temp as $$
#variable_conflict use_column
begin
  perform pg_advisory_xact_lock(hashtextextended('caudal.log_group:' || p_group, 0));
  delete from log_member m where m.group_name = p_group and m.expires < clock_timestamp() and m.member <> p_member;
  insert into log_member as m (group_name, member, topics, expires)
    values (p_group, p_member, p_topics, clock_timestamp() + p_lease)
    on conflict on constraint log_member_pkey do update set expires = excluded.expires, topics = excluded.topics;
  insert into log_group(name, topic_id, partition)
    select p_group, p.topic_id, p.partition from log_partition p where p.topic_id = any(p_topics)
      and not exists (select from log_group g where g.name = p_group and (g.topic_id, g.partition) = (p.topic_id, p.partition))
    on conflict do nothing;
  update log_group g set owner = null from unnest(p_released_topics, p_released) r(t, n)
    where g.name = p_group and g.owner = p_member and g.topic_id = r.t and g.partition = r.n;
  return query
    with ranked as (
      select t.topic, m.member, row_number() over (partition by t.topic order by m.member) - 1 as place,
             count(*) over (partition by t.topic) as size
      from log_member m cross join unnest(m.topics) t(topic) where m.group_name = p_group
    ), wanted as (
      select g.topic_id, g.partition, (r.member = p_member) as mine
      from log_group g join ranked r on r.topic = g.topic_id and r.place = (g.partition + g.topic_id) % r.size
      where g.name = p_group and g.topic_id = any(p_topics)
    ), taken as (
      update log_group g set owner = p_member, epoch = g.epoch + 1 from wanted w
      where g.name = p_group and (g.topic_id, g.partition) = (w.topic_id, w.partition) and w.mine
        and (g.owner is null or (g.owner <> p_member
             and not exists (select from log_member m where m.group_name = p_group and m.member = g.owner)))
      returning g.topic_id, g.partition, g.committed, g.epoch
    )
    select t.topic_id, t.partition, t.committed, t.epoch, true from taken t
    union all
    select g.topic_id, g.partition, g.committed, g.epoch, w.mine from log_group g
      join wanted w on (g.topic_id, g.partition) = (w.topic_id, w.partition)
      where g.name = p_group and g.owner = p_member
        and not exists (select from taken t where (t.topic_id, t.partition) = (g.topic_id, g.partition));
end $$;

-- Remember what is processed; false when a partition has gone to another member since, and then nothing changed
-- that the caller could commit: it must roll back.
create function caudal.log_commit(
  p_group text, p_member uuid, p_topics smallint[], p_partitions smallint[], p_epochs bigint[], p_next bigint[]
) returns boolean
  language plpgsql security definer set search_path = caudal, pg_catalog, pg_temp set plan_cache_mode = force_generic_plan as $$
declare changed int;
begin
  update log_group g set committed = greatest(g.committed, c.next)
    from unnest(p_topics, p_partitions, p_epochs, p_next) c(topic_id, partition, epoch, next)
    where g.name = p_group and g.owner = p_member and g.topic_id = c.topic_id and g.partition = c.partition
      and g.epoch = c.epoch;
  get diagnostics changed = row_count;
  return changed = cardinality(p_topics);
end $$;

-- Drop up to `p_limit` records that every group has processed and that are older than `p_keep`;
-- and, whoever has not read them, those older than `p_keep_unread`. Returns how many went.
create function caudal.log_trim(p_keep interval, p_keep_unread interval, p_limit int) returns int
  language plpgsql security definer set search_path = caudal, pg_catalog, pg_temp as $$
declare gone int := 0; removed int; part record;
begin
  if not pg_try_advisory_xact_lock(hashtextextended('caudal.log_trim', 0)) then return 0; end if;
  for part in
    select p.topic_id, p.partition, min(g.committed) as done from log_partition p
    left join log_group g on (g.topic_id, g.partition) = (p.topic_id, p.partition) group by 1, 2
  loop
    with old as (
      select r."offset" from log_record r where r.topic_id = part.topic_id and r.partition = part.partition
        and ((r."offset" < part.done and r.published < now() - p_keep) or r.published < now() - p_keep_unread)
      order by r."offset" limit p_limit - gone
    )
    delete from log_record r using old where r.topic_id = part.topic_id and r.partition = part.partition
      and r."offset" = old."offset";
    get diagnostics removed = row_count;
    gone := gone + removed;
    exit when gone >= p_limit;
  end loop;
  return gone;
end $$;

revoke execute on function caudal.log_ensure(text, int), caudal.log_append(text, text[], bytea[]),
  caudal.log_heartbeat(text, uuid, smallint[], interval, smallint[], smallint[]),
  caudal.log_commit(text, uuid, smallint[], smallint[], bigint[], bigint[]),
  caudal.log_trim(interval, interval, int) from public;
grant execute on function caudal.log_ensure(text, int), caudal.log_append(text, text[], bytea[]),
  caudal.log_heartbeat(text, uuid, smallint[], interval, smallint[], smallint[]),
  caudal.log_commit(text, uuid, smallint[], smallint[], bigint[], bigint[]),
  caudal.log_trim(interval, interval, int) to caudal_messaging;
grant execute on function caudal.log_ensure(text, int), caudal.log_append(text, text[], bytea[]) to caudal_app;
-- Who puts dead letters back.
grant execute on function caudal.log_append(text, text[], bytea[]) to caudal_ingest;
grant select on caudal.log_topic to caudal_ingest;
-- What the API asks to know that the log is there.
grant select on caudal.log_topic to caudal_app;
grant select on caudal.log_topic, caudal.log_partition, caudal.log_record, caudal.log_group, caudal.log_member
  to caudal_messaging;
grant delete on caudal.log_member to caudal_messaging;
grant update (owner) on caudal.log_group to caudal_messaging;

-- Poison records go where telemetry's dead letters are.
grant select, insert, update on caudal.dead_letter to caudal_messaging;
grant select on caudal.tenant to caudal_messaging;
create policy messaging on caudal.dead_letter to caudal_messaging using (true) with check (true);
create policy messaging on caudal.tenant for select to caudal_messaging using (true);
