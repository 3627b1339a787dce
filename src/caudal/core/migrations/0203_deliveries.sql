-- What moves a delivery: the intent before the call, the call's outcome, receipts, waiting, expiry, sending again.

-- The word of a connector before it calls the provider. verdict:
--   call  recorded as `sending`: make the call, then settle with this attempt
--   wait  an earlier message to the same person in the same conversation is not settled: parked behind it
--   done  nothing to do: sent before, failed, expired, or gone
-- One found `sending` was being called when its worker died: whether it went out nobody knows, so it is not sent.
create function caudal.delivery_intent(p_id bigint, p_account text) returns table (verdict text, attempt int, was text)
  language plpgsql as $$
#variable_conflict use_column
declare d caudal.delivery;
begin
  select * into d from caudal.delivery where id = p_id for update;
  if d.state = 'pending' and d.expires_at < now() then
    return query select 'done', d.attempt, 'expired';
  elsif d.state = 'pending' then
    if exists (select from caudal.delivery e where e.conversation_id = d.conversation_id and e.channel = d.channel
               and e.address = d.address and e.id < d.id and e.state in ('pending', 'sending') and e.channel <> 'app') then
      update caudal.delivery set parked = true, next_attempt_at = 'infinity' where id = p_id;
      return query select 'wait', d.attempt, d.state;
    else
      update caudal.delivery set state = 'sending', attempt = d.attempt + 1, called_at = clock_timestamp(), parked = false,
        next_attempt_at = null, account = coalesce(p_account, account), reason = null, reason_code = null where id = p_id;
      return query select 'call', d.attempt + 1, d.state;
    end if;
  else
    return query select 'done', d.attempt, d.state;
  end if;
end $$;

-- Move deliveries forward, each only if (attempt, state) is beyond where it is. An attempt of null is the present
-- one. `delivered` and `read` count whatever the attempt: the person has it. Returns every one that was there.
create function caudal.delivery_advance(
  p_ids bigint[], p_attempts int[], p_states text[], p_at timestamptz[], p_codes text[], p_reasons text[]
) returns table (moved boolean, delivery_id bigint, message_id uuid, conversation_id bigint, tenant_id int, channel text,
                 address text, state text, at timestamptz, reason text)
  language plpgsql as $$
#variable_conflict use_column
declare d caudal.delivery; item record; forward boolean;
begin
  for item in
    select * from unnest(p_ids, p_attempts, p_states, p_at, p_codes, p_reasons) with ordinality
      i(id, attempt, state, at, code, reason, ord) order by i.id, i.ord
  loop
    select * into d from caudal.delivery x where x.id = item.id for update;
    continue when d.id is null;
    forward := caudal.delivery_rank(item.state) > caudal.delivery_rank(d.state)
      and (item.state in ('delivered', 'read') or coalesce(item.attempt, d.attempt) = d.attempt);
    -- Times are the earliest that anybody reported, whichever order the reports come in.
    update caudal.delivery x set
      state = case when forward then item.state else x.state end,
      parked = x.parked and not forward,
      next_attempt_at = case when forward then null else x.next_attempt_at end,
      sent_at = case when item.state = 'sent' then least(x.sent_at, item.at) else x.sent_at end,
      delivered_at = case when item.state = 'delivered' then least(x.delivered_at, item.at) else x.delivered_at end,
      read_at = case when item.state = 'read' then least(x.read_at, item.at) else x.read_at end,
      failed_at = case when forward and item.state = 'failed' then item.at else x.failed_at end,
      reason_code = case when forward then item.code else x.reason_code end,
      reason = case when forward then item.reason else x.reason end
    where x.id = item.id;
    return query select forward, d.id, d.message_id, d.conversation_id, d.tenant_id, d.channel, d.address,
      item.state, item.at, item.reason;
  end loop;
end $$;

-- Bring messages' own status up to their deliveries'; returns those whose status changed.
create function caudal.message_refresh(p_ids uuid[]) returns table (
    message_id uuid, tenant_id int, sender text, conversation text, status text, reason text, at timestamptz)
  language sql as $$
    with locked as materialized (select m.* from caudal.message m where m.id = any(p_ids) order by m.id for no key update),
    summed as (
      select l.id, l.status as before, max(caudal.delivery_rank(d.state)) as best, bool_and(d.state = 'failed') as failed,
             min(coalesce(d.delivered_at, d.read_at)) as delivered_at, min(d.read_at) as read_at,
             min(d.reason) filter (where d.state = 'failed') as reason
      from locked l join caudal.delivery d on d.message_id = l.id group by l.id, l.status
    ), next as (
      select s.*, case when best = caudal.delivery_rank('read') then 'READ'
                       when best = caudal.delivery_rank('delivered') then 'DELIVERED'
                       when failed then 'FAILED' else 'SENT' end as status from summed s
    ), changed as (
      update caudal.message m set
        status = case when caudal.status_rank(n.status) > caudal.status_rank(m.status) then n.status else m.status end,
        delivered_at = n.delivered_at, read_at = n.read_at, reason = case when n.failed then n.reason end
      from next n where m.id = n.id and (n.status, n.delivered_at, n.read_at, case when n.failed then n.reason end)
        is distinct from (m.status, m.delivered_at, m.read_at, m.reason)
      returning m.*, n.before
    )
    select m.id, m.tenant_id, m.sender, c.name, m.status, m.reason,
           coalesce(case m.status when 'READ' then m.read_at when 'DELIVERED' then m.delivered_at end, now())
    from changed m join caudal.conversation c on c.id = m.conversation_id where m.status <> m.before $$;

-- Give a delivery the provider's id of its call, and apply what receipts came before we knew it.
create function caudal.delivery_refer(p_id bigint, p_attempt int, p_provider_id text) returns table (
    state text, at timestamptz, reason_code text, reason text)
  language plpgsql as $$
declare d caudal.delivery;
begin
  select * into d from caudal.delivery x where x.id = p_id;
  -- The same lock as in delivery_receipt: a receipt is either found here, or finds the reference there.
  perform pg_advisory_xact_lock(hashtextextended(d.channel || ':' || p_provider_id, d.tenant_id));
  insert into caudal.provider_reference(tenant_id, channel, provider_id, delivery_id, attempt)
    values (d.tenant_id, d.channel, p_provider_id, p_id, p_attempt) on conflict do nothing;
  update caudal.delivery x set provider_id = p_provider_id where x.id = p_id and x.attempt = p_attempt;
  return query delete from caudal.early_receipt e
    where e.tenant_id = d.tenant_id and e.channel = d.channel and e.provider_id = p_provider_id
    returning e.state, e.at, e.reason_code, e.reason;
end $$;

-- The delivery a receipt is about; null when nobody knows it yet: then the receipt is kept.
create function caudal.delivery_receipt(
  p_tenant int, p_channel text, p_provider_id text, p_state text, p_at timestamptz, p_code text, p_reason text
) returns table (delivery_id bigint, attempt int) language plpgsql as $$
#variable_conflict use_column
begin
  perform pg_advisory_xact_lock(hashtextextended(p_channel || ':' || p_provider_id, p_tenant));
  return query select r.delivery_id, r.attempt from caudal.provider_reference r
    where r.tenant_id = p_tenant and r.channel = p_channel and r.provider_id = p_provider_id;
  if not found then
    insert into caudal.early_receipt as e (tenant_id, channel, provider_id, state, at, reason_code, reason)
      values (p_tenant, p_channel, p_provider_id, p_state, p_at, p_code, p_reason)
      on conflict (tenant_id, channel, provider_id, state) do update set at = least(e.at, excluded.at);
  end if;
end $$;

-- Put back what a call refused or could not be made for: it waits, in its place, until `p_at`. With `p_most` the call
-- counts as a failure, and with the last one allowed nothing changes but the count, and false is returned.
create function caudal.delivery_defer(
  p_id bigint, p_attempt int, p_at timestamptz, p_code text, p_reason text, p_most int
) returns boolean language plpgsql as $$
declare spent boolean;
begin
  update caudal.delivery set failures = failures + 1
    where p_most is not null and id = p_id and attempt = p_attempt and state = 'sending'
    returning failures >= p_most into spent;
  if spent then return false; end if;
  update caudal.delivery set state = 'pending', parked = true, next_attempt_at = p_at, reason_code = p_code, reason = p_reason
    -- Without an attempt nobody was called; then what another worker is calling stays its own.
    where id = p_id and (attempt = p_attempt and state in ('pending', 'sending') or p_attempt is null and state = 'pending');
  return true;
end $$;

-- Take from their waiting those whose time has come and whom nothing earlier to the same person holds back; and
-- with each, in order, up to `p_follow` that wait behind it. The caller publishes them again, in this order.
create function caudal.delivery_release(p_due timestamptz, p_limit int, p_follow int, p_stuck boolean)
  returns table (delivery_id bigint) language sql as $$
    with head as (
      select d.id, d.conversation_id, d.channel, d.address from caudal.delivery d
      where d.parked and (d.next_attempt_at <= p_due or (p_stuck and d.next_attempt_at = 'infinity'))
        and not exists (select from caudal.delivery e where e.conversation_id = d.conversation_id and e.channel = d.channel
          and e.address = d.address and e.id < d.id and e.state in ('pending', 'sending') and e.channel <> 'app')
      order by d.next_attempt_at limit p_limit for update of d skip locked
    ), lane as (
      select h.id from head h
      union all
      select f.id from head h cross join lateral (
        select d.id from caudal.delivery d where d.conversation_id = h.conversation_id and d.channel = h.channel
          and d.address = h.address and d.id > h.id and d.state in ('pending', 'sending') and d.channel <> 'app'
          and d.parked and d.next_attempt_at = 'infinity' order by d.id limit p_follow) f
    ), freed as (
      update caudal.delivery d set parked = false, next_attempt_at = null from lane l where d.id = l.id and d.parked
      returning d.id
    )
    select id from freed order by id $$;
