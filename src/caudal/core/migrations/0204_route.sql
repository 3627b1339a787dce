-- From a message to its deliveries: once, whoever asks and how often.

-- Route these messages, and whatever waits in the same conversations; each becomes one delivery for each channel of
-- each person. `app` deliveries are where they should be as soon as they exist. Returns the others, in order.
create function caudal.route_messages(p_ids uuid[], p_expiry interval) returns table (
    delivery_id bigint, message_id uuid, channel text)
  language sql as $$
    with item as materialized (
      select m.id, m.tenant_id, m.conversation_id, m.place, m.sender, m.recipient from caudal.message m
      where m.id = any(p_ids) and m.routed_at is null order by m.id for no key update
    ), named as (
      select i.*, w.who from item i cross join lateral (
        select i.recipient where i.recipient is not null
        union all
        select p.who from caudal.participant p where i.recipient is null and p.conversation_id = i.conversation_id) w(who)
    ), opened as (
      select n.id, n.tenant_id, n.conversation_id, n.place, n.sender, n.recipient, coalesce(g.who, n.who) as who
      from named n left join caudal.group_member g on g.group_id = n.who
      where g.who is not null or n.who not like 'group\_%'
    ), target as (
      select distinct o.id, o.tenant_id, o.conversation_id, o.place, a.channel, a.address
      from opened o cross join lateral (
        select 'app', o.who where o.who ~ '^([0-9a-f]{8}-|key:)'
        union all
        select x.platform, x.value from caudal.identity x where x.tenant_id = o.tenant_id and x.user_id = o.who
        union all
        select split_part(o.who, ':', 1), substr(o.who, strpos(o.who, ':') + 1)
          where o.who like '%:%' and o.who not like 'key:%') a(channel, address)
      where o.who <> o.sender
        -- What somebody writes comes back to a number of their own only if they asked for it.
        and (o.recipient is not null or not exists (select from caudal.identity x where x.tenant_id = o.tenant_id
             and x.platform = a.channel and x.value = a.address and x.user_id = o.sender))
    ), stored as (
      insert into caudal.delivery(tenant_id, message_id, conversation_id, channel, address, state, sent_at, expires_at)
      select t.tenant_id, t.id, t.conversation_id, t.channel, t.address,
             case t.channel when 'app' then 'sent' else 'pending' end,
             case t.channel when 'app' then clock_timestamp() end,
             case t.channel when 'app' then null else now() + p_expiry end
      from target t order by t.conversation_id, t.place, t.channel, t.address
      on conflict do nothing returning id, message_id, channel
    ), marked as (
      update caudal.message m set routed_at = case when f.found then clock_timestamp() end, waiting = not f.found
      from (select i.id, exists (select from target t where t.id = i.id) as found from item i) f
      where m.id = f.id and (f.found or not m.waiting)
    )
    select s.id, s.message_id, s.channel from stored s where s.channel <> 'app' order by s.id $$;

-- Whom to tell of a message: everybody in the conversation and whom it was addressed to, but not who wrote it.
create function caudal.message_audience(p_ids uuid[]) returns table (tenant_id int, user_id text, message_id uuid)
  language sql stable as $$
    select a.tenant_id, a.who, a.id from (
      select distinct m.tenant_id, coalesce(g.who, p.who) as who, m.id, m.conversation_id, m.place, m.sender
      from caudal.message m join caudal.participant p on p.conversation_id = m.conversation_id
      left join caudal.group_member g on g.group_id = p.who
      where m.id = any(p_ids)) a
    where a.who ~ '^[0-9a-f]{8}-' and a.who <> a.sender
    order by a.conversation_id, a.place $$;
