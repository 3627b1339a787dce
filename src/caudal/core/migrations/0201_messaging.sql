-- Conversations, who is in them, what was said, and what became of it on each channel.
--
-- A party is written as `recipient_id` writes it: a user's id, `group_…`, `whatsapp:+55…`, `instagram:@…`; and
-- `key:…` for an application that sends with an API key.

create table caudal.conversation (
  id bigint generated always as identity primary key,
  tenant_id int not null references caudal.tenant,
  -- Chosen by the client; unique within its tenant alone.
  name text not null,
  -- Also the number of the last message: a message's place is handed out under this row's lock.
  message_count bigint not null default 0,
  created_at timestamptz not null default now(),
  last_message_at timestamptz,
  -- Begun by somebody who wrote to us from outside, and named by their address.
  inbound boolean not null default false,
  unique (tenant_id, name)
) with (fillfactor = 70);

create table caudal.participant (
  tenant_id int not null,
  conversation_id bigint not null references caudal.conversation,
  who text not null,
  joined_at timestamptz not null default now(),
  primary key (conversation_id, who)
);
create index participant_who on caudal.participant (tenant_id, who, conversation_id);

-- No foreign keys on what is written for each message: the conversation's row is locked by the same transaction,
-- and conversations are not deleted.
create table caudal.message (
  id uuid primary key,
  tenant_id int not null,
  conversation_id bigint not null,
  place bigint not null,
  sender text not null,
  recipient text,
  content text not null,
  file_id uuid,
  idempotency_key text,
  sent_at timestamptz not null,
  -- When its deliveries were made. Waiting: nobody else was there; it goes out when somebody joins.
  routed_at timestamptz,
  waiting boolean not null default false,
  status text not null default 'SENT' check (status in ('SENT', 'FAILED', 'DELIVERED', 'READ')),
  reason text,
  delivered_at timestamptz,
  read_at timestamptz,
  unique (conversation_id, place)
);
create unique index message_idempotency on caudal.message (tenant_id, sender, idempotency_key)
  where idempotency_key is not null;
create index message_waiting on caudal.message (conversation_id, place) where waiting;

-- One message to one person by one channel. Channel `app` is the person's own inbox here: history and sockets.
create table caudal.delivery (
  id bigint generated always as identity primary key,
  tenant_id int not null,
  message_id uuid not null,
  conversation_id bigint not null,
  channel text not null,
  address text not null,
  state text not null default 'pending'
    check (state in ('pending', 'sending', 'unknown', 'sent', 'failed', 'delivered', 'read')),
  -- Grows with each call to the provider. (attempt, state) only ever moves forward.
  attempt int not null default 0,
  -- Calls that the provider failed; being told to slow down is none.
  failures int not null default 0,
  -- Waits for `next_attempt_at`, or for an earlier one to the same person in the same conversation.
  parked boolean not null default false,
  next_attempt_at timestamptz,
  account text,
  provider_id text,
  reason_code text,
  reason text,
  created_at timestamptz not null default now(),
  expires_at timestamptz,
  called_at timestamptz,
  sent_at timestamptz,
  delivered_at timestamptz,
  read_at timestamptz,
  failed_at timestamptz,
  unique (message_id, channel, address)
) with (fillfactor = 80);
create index delivery_lane on caudal.delivery (conversation_id, channel, address, id)
  where state in ('pending', 'sending') and channel <> 'app';
create index delivery_parked on caudal.delivery (next_attempt_at) where parked;
create index delivery_expiry on caudal.delivery (expires_at) where state in ('pending', 'sending') and channel <> 'app';
create index delivery_address on caudal.delivery (tenant_id, channel, address, id desc) where channel <> 'app';

-- Which delivery a provider's id belongs to; a delivery sent again has several.
create table caudal.provider_reference (
  tenant_id int not null,
  channel text not null,
  provider_id text not null,
  delivery_id bigint not null,
  attempt int not null,
  primary key (tenant_id, channel, provider_id)
);

-- Receipts that came before we knew the provider's id of their message: kept for it.
create table caudal.early_receipt (
  tenant_id int not null,
  channel text not null,
  provider_id text not null,
  state text not null check (state in ('sent', 'failed', 'delivered', 'read')),
  at timestamptz not null,
  reason_code text,
  reason text,
  received timestamptz not null default now(),
  primary key (tenant_id, channel, provider_id, state)
);

create table caudal.identity (
  tenant_id int not null references caudal.tenant,
  platform text not null check (platform ~ '^[a-z][a-z0-9]{1,19}$'),
  value text not null,
  user_id text not null,
  verified boolean not null default false,
  linked_at timestamptz not null default now(),
  primary key (tenant_id, platform, value)
);
create index identity_user on caudal.identity (tenant_id, user_id);

create table caudal.people_group (
  id text primary key check (id ~ '^group_[0-9a-f-]{36}$'),
  tenant_id int not null references caudal.tenant,
  name text not null,
  description text,
  created_by text not null,
  created_at timestamptz not null default now()
);
create index people_group_tenant on caudal.people_group (tenant_id);

create table caudal.group_member (
  tenant_id int not null,
  group_id text not null references caudal.people_group,
  who text not null,
  is_admin boolean not null default false,
  joined_at timestamptz not null default now(),
  primary key (group_id, who)
);
create index group_member_who on caudal.group_member (tenant_id, who, group_id);

-- What a person's sockets show. Numbers are dense for each person and handed out under the lock of the person's
-- cursor until commit: whoever asks for "after the last I saw" gets every one.
create table caudal.notification_cursor (
  tenant_id int not null,
  user_id text not null,
  last bigint not null default 0,
  primary key (tenant_id, user_id)
) with (fillfactor = 50);
create table caudal.notification (
  tenant_id int not null,
  user_id text not null,
  id bigint not null,
  -- A new message is shown from its row, so that one to a large group is not stored once for each member.
  message_id uuid,
  payload jsonb,
  created_at timestamptz not null default clock_timestamp(),
  check (num_nonnulls(message_id, payload) = 1),
  primary key (tenant_id, user_id, id)
);
create index notification_created on caudal.notification using brin (created_at);

do $$
declare name text;
begin
  foreach name in array array['conversation', 'participant', 'message', 'delivery', 'provider_reference', 'early_receipt',
      'identity', 'people_group', 'group_member', 'notification_cursor', 'notification'] loop
    execute format('alter table caudal.%I enable row level security', name);
    execute format('create policy tenant on caudal.%I using (tenant_id = (select caudal.current_tenant()))', name);
    execute format('create policy messaging on caudal.%I to caudal_messaging using (true) with check (true)', name);
    execute format('grant select, insert, update, delete on caudal.%I to caudal_app, caudal_messaging', name);
  end loop;
end $$;

-- The order in which the states of one attempt follow each other. What is nearer to the person wins: a receipt
-- that says it arrived outweighs one that says it could not.
create function caudal.delivery_rank(state text) returns int language sql immutable parallel safe as $$
  select array_position(array['pending', 'sending', 'unknown', 'sent', 'failed', 'delivered', 'read'], state) $$;
create function caudal.status_rank(status text) returns int language sql immutable parallel safe as $$
  select array_position(array['SENT', 'FAILED', 'DELIVERED', 'READ'], status) $$;

-- Number the notifications of each person and store them. Call it late in a transaction.
create function caudal.notify_people(p_tenants int[], p_users text[], p_messages uuid[], p_payloads jsonb[]) returns void
  language plpgsql as $$
begin
  with item as (
    select t, u, message, payload, row_number() over (partition by t, u order by ord) as n, count(*) over (partition by t, u) as size
    from unnest(p_tenants, p_users, p_messages, p_payloads) with ordinality i(t, u, message, payload, ord)
  ), moved as (
    insert into caudal.notification_cursor as c (tenant_id, user_id, last)
      select distinct t, u, size from item order by t, u
      on conflict (tenant_id, user_id) do update set last = c.last + excluded.last
      returning c.tenant_id, c.user_id, c.last
  )
  insert into caudal.notification(tenant_id, user_id, id, message_id, payload)
    select i.t, i.u, m.last - i.size + i.n, i.message, i.payload
    from item i join moved m on (m.tenant_id, m.user_id) = (i.t, i.u);
end $$;
