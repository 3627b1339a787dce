-- Accept a batch of one tenant's messages: authorise, store, append to the log. It runs with its owner's rights,
-- because row security would look the tenant up again for each statement of each batch; so every statement below
-- goes by `tenant`, or by a conversation that was found by it.
--
-- outcome: accepted; repeated (an earlier message with this idempotency key; its id is returned); key_reused (the
-- key belongs to another text); forbidden (not a participant, or not of that group); no_recipient; no_file; itself.

create function caudal.is_participant(p_conversation bigint, p_who text) returns boolean
  language sql stable as $$
    select exists (select from caudal.participant p where p.conversation_id = p_conversation and p.who = p_who)
        or exists (select from caudal.participant p join caudal.group_member g on g.group_id = p.who and g.who = p_who
                   where p.conversation_id = p_conversation and p.who like 'group\_%') $$;

create function caudal.accept_messages(
  p_tenant text, p_ids uuid[], p_conversations text[], p_senders text[], p_recipients text[], p_contents text[], p_files uuid[],
  p_keys text[], p_values bytea[], p_at timestamptz
) returns table (ord bigint, outcome text, message_id uuid)
  -- Plans that fit any arguments: else each statement is planned anew for each batch's arrays, at more than its run.
  language plpgsql security definer set search_path = pg_catalog, pg_temp set plan_cache_mode = force_generic_plan as $$
#variable_conflict use_column
declare
  tenant int;
  convs bigint[];
  outcomes text[];
  inserted uuid[];
  round int;
begin
  -- Set here, so that a batch is one statement and one round trip instead of four.
  perform set_config('app.tenant_id', p_tenant, true);
  tenant := caudal.current_tenant();
  if tenant is null then raise exception 'no tenant' using errcode = 'insufficient_privilege'; end if;
  for round in 1..2 loop
    select array_agg(c.id order by i.ord),
           array_agg(coalesce(case
             when c.id is not null
               and not exists (select from caudal.participant p where p.conversation_id = c.id and p.who = i.sender)
               and not exists (select from caudal.participant p join caudal.group_member g on g.group_id = p.who
                               where p.conversation_id = c.id and p.who like 'group\_%' and g.who = i.sender) then 'forbidden'
             when i.recipient is null then null
             when i.recipient = i.sender then 'itself'
             when i.recipient like 'group\_%' then
               case when exists (select from caudal.group_member g
                 where g.group_id = i.recipient and g.who = i.sender and g.tenant_id = tenant)
                 then null else 'forbidden' end
             when i.recipient ~ '^[0-9a-f]{8}-[0-9a-f-]{27}$' then
               case when exists (select from caudal.membership m
                 where m.tenant_id = tenant and m.person_id = i.recipient::uuid) then null else 'no_recipient' end
           end, case when i.file is not null and not exists (
             select from caudal.file f where f.id = i.file and f.conversation_id = c.id) then 'no_file' end) order by i.ord)
      into convs, outcomes
      from unnest(p_conversations, p_senders, p_recipients, p_files) with ordinality
        i(conversation, sender, recipient, file, ord)
      left join caudal.conversation c on c.tenant_id = tenant and c.name = i.conversation;
    exit when round = 2 or array_position(convs, null) is null;
    -- Whoever comes first begins the conversation; then everybody is looked at again, whoever began it.
    with first as (
      select distinct on (i.conversation) i.conversation, i.sender, i.recipient
      from unnest(p_conversations, p_senders, p_recipients, convs, outcomes) with ordinality
        i(conversation, sender, recipient, conv, outcome, ord)
      where i.conv is null and i.outcome is null order by i.conversation, i.ord
    ), begun as (
      insert into caudal.conversation(tenant_id, name) select tenant, conversation from first order by conversation
        on conflict do nothing returning id, name
    )
    insert into caudal.participant(tenant_id, conversation_id, who)
      select tenant, b.id, w.who from begun b join first f on f.conversation = b.name
        cross join lateral (values (f.sender), (f.recipient)) w(who) where w.who is not null
      on conflict do nothing;
  end loop;

  -- The conversation's lock makes its places, its records in the log and its commits one order.
  perform from caudal.conversation c
    where c.id in (select i.conv from unnest(convs, outcomes) i(conv, outcome) where i.outcome is null)
    order by c.id for no key update;
  if exists (select from unnest(p_keys) k where k is not null) then
    select array_agg(coalesce(i.outcome, case when m.id is null then null
        when (m.content, m.conversation_id, m.recipient, m.file_id)
          is distinct from (i.content, i.conv, i.recipient, i.file) then 'key_reused'
        else 'repeated' end) order by i.ord)
      into outcomes
      from unnest(outcomes, p_keys, p_senders, p_contents, convs, p_recipients, p_files) with ordinality
        i(outcome, key, sender, content, conv, recipient, file, ord)
      left join caudal.message m on m.tenant_id = tenant and m.sender = i.sender and m.idempotency_key = i.key;
  end if;

  with item as (
    select i.*, row_number() over (partition by i.conv order by i.ord) as n
    from unnest(p_ids, convs, p_senders, p_recipients, p_contents, p_files, p_keys, outcomes) with ordinality
      i(id, conv, sender, recipient, content, file, key, outcome, ord)
    where i.outcome is null
  ), stored as (
    insert into caudal.message(id, tenant_id, conversation_id, place, sender, recipient, content, file_id,
                               idempotency_key, sent_at)
      select i.id, tenant, i.conv, c.message_count + i.n, i.sender, i.recipient, i.content, i.file, i.key, p_at
      from item i join caudal.conversation c on c.id = i.conv order by i.ord
      on conflict do nothing returning id
  ), counted as (
    update caudal.conversation c set message_count = c.message_count + t.n, last_message_at = p_at
      from (select conv, count(*) as n from item group by conv) t where c.id = t.conv
  ), joined as (
    insert into caudal.participant(tenant_id, conversation_id, who)
      select distinct tenant, i.conv, i.recipient from item i where i.recipient is not null
        and not exists (select from caudal.participant p where p.conversation_id = i.conv and p.who = i.recipient)
      on conflict do nothing
  )
  select array_agg(id) into inserted from stored;

  perform caudal.log_append('messages', array_agg(i.conversation order by i.ord), array_agg(i.value order by i.ord))
    from unnest(p_conversations, p_values, p_ids, outcomes) with ordinality i(conversation, value, id, outcome, ord)
    where i.outcome is null and i.id = any(inserted) having count(*) > 0;

  return query
    select i.ord,
           -- Somebody else stored the same key in another conversation at this very moment.
           coalesce(i.outcome, case when i.id = any(inserted) then 'accepted' else 'key_reused' end),
           case when i.outcome = 'repeated' then (select m.id from caudal.message m
              where m.tenant_id = tenant and m.sender = i.sender and m.idempotency_key = i.key) else i.id end
    from unnest(p_ids, outcomes, p_senders, p_keys) with ordinality i(id, outcome, sender, key, ord) order by i.ord;
end $$;

revoke execute on function caudal.accept_messages(text, uuid[], text[], text[], text[], text[], uuid[], text[], bytea[], timestamptz)
  from public;
grant execute on function caudal.accept_messages(text, uuid[], text[], text[], text[], text[], uuid[], text[], bytea[], timestamptz)
  to caudal_app;

-- Files that messages name; the object store has the bytes.
create table caudal.file (
  id uuid primary key,
  tenant_id int not null references caudal.tenant,
  conversation_id bigint not null references caudal.conversation,
  uploader text not null,
  filename text not null,
  content_type text not null default 'application/octet-stream',
  size_bytes bigint not null,
  checksum text not null,
  storage_path text not null,
  uploaded_at timestamptz not null default now()
);
create index file_conversation on caudal.file (conversation_id);
create index file_tenant on caudal.file (tenant_id);
alter table caudal.file enable row level security;
create policy tenant on caudal.file using (tenant_id = (select caudal.current_tenant()));
create policy messaging on caudal.file to caudal_messaging using (true) with check (true);
grant select, insert, update, delete on caudal.file to caudal_app;
grant select on caudal.file to caudal_messaging;
