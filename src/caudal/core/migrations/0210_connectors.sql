-- Tenants' numbers and accounts at providers, the people behind them, what was sent how fast, what came in.

create table caudal.channel_account (
  id bigint generated always as identity primary key,
  tenant_id int not null references caudal.tenant,
  -- whatsapp, instagram, or any name of the tenant's for what goes by Apprise: email, telegram, …
  channel text not null check (channel ~ '^[a-z][a-z0-9]{1,19}$'),
  connector text not null,
  name text not null default '',
  -- The provider's id of it: phone_number_id, Instagram's account id.
  provider_account text not null,
  -- Token, app secret, verify token, URL: sealed.
  secrets bytea not null,
  -- The last part of the address to which the provider sends webhooks. No secret, but nobody guesses it.
  hook uuid not null unique default gen_random_uuid(),
  per_second float8 not null default 80 check (per_second > 0),
  media_per_second float8 not null default 80 check (media_per_second > 0),
  pair_interval float8 not null default 0 check (pair_interval >= 0),
  pair_burst int not null default 1 check (pair_burst > 0),
  window_seconds float8,
  -- Used outside the window, with the text as its one blank: {"name", "language"}.
  template jsonb,
  human_agent boolean not null default false,
  enabled boolean not null default true,
  -- What somebody must attend to, in the provider's words; gone with the next success.
  problem text,
  problem_at timestamptz,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  unique (tenant_id, channel, provider_account)
);

-- A person on an account: `contact` is the provider's id of them, `wrote_at` opens the window.
create table caudal.channel_contact (
  tenant_id int not null,
  account_id bigint not null references caudal.channel_account on delete cascade,
  address text not null,
  contact text,
  name text,
  wrote_at timestamptz,
  primary key (account_id, address)
);
create unique index channel_contact_contact on caudal.channel_contact (account_id, contact);

-- Token buckets, one number each (`repaid`: when all that was borrowed is repaid), shared by every worker. `key` is
-- '' or 'media' for the account, else an address. Lost in a crash, and then the provider's own limits hold.
create unlogged table caudal.channel_limit (
  account_id bigint not null,
  key text not null,
  repaid timestamptz not null default '-infinity',
  not_before timestamptz not null default '-infinity',
  strikes int not null default 0,
  primary key (account_id, key)
) with (fillfactor = 50);

-- What providers told us, for good: they repeat themselves for up to seven days, and nobody knows the last time.
create table caudal.inbound_event (
  tenant_id int not null,
  channel text not null,
  provider_account text not null,
  provider_id text not null,
  received timestamptz not null default now(),
  primary key (tenant_id, channel, provider_account, provider_id)
);

do $$
declare name text;
begin
  foreach name in array array['channel_account', 'channel_contact', 'inbound_event'] loop
    execute format('alter table caudal.%I enable row level security', name);
    execute format('create policy tenant on caudal.%I using (tenant_id = (select caudal.current_tenant()))', name);
    execute format('create policy messaging on caudal.%I to caudal_messaging using (true) with check (true)', name);
    execute format('grant select, insert, update, delete on caudal.%I to caudal_app, caudal_messaging', name);
  end loop;
end $$;
alter table caudal.channel_limit enable row level security;
create policy messaging on caudal.channel_limit to caudal_messaging using (true) with check (true);
grant select, insert, update, delete on caudal.channel_limit to caudal_messaging;

-- Ask for a place in every bucket of `p_keys` at once. `wait` is how long to wait for it, in seconds; `taken` whether
-- it is ours then: not when the wait exceeds `p_patience`. Also says what is known of the person at `p_address`.
create function caudal.channel_take(
  p_account bigint, p_keys text[], p_intervals float8[], p_bursts int[], p_patience float8, p_address text
) returns table (taken boolean, wait float8, strikes int, contact text, wrote_at timestamptz)
  language plpgsql as $$
#variable_conflict use_column
declare
  at timestamptz;
  due timestamptz;
  held int;
begin
  -- Buckets are as good as lost in a crash anyway; no reason to wait for the disk.
  perform set_config('synchronous_commit', 'off', true);
  -- In order of key, so that two workers cannot hold what the other waits for.
  perform from caudal.channel_limit l where l.account_id = p_account and l.key = any(p_keys) order by l.key for update;
  get diagnostics held = row_count;
  if held < cardinality(p_keys) then
    insert into caudal.channel_limit(account_id, key) select p_account, k from unnest(p_keys) k order by k
      on conflict do nothing;
    perform from caudal.channel_limit l where l.account_id = p_account and l.key = any(p_keys) order by l.key for update;
  end if;
  at := clock_timestamp();
  select max(greatest(l.repaid - make_interval(secs => k.gap * (k.burst - 1)), l.not_before)), max(l.strikes)
    into due, strikes
    from unnest(p_keys, p_intervals, p_bursts) k(key, gap, burst)
    join caudal.channel_limit l on l.account_id = p_account and l.key = k.key;
  wait := greatest(extract(epoch from due - at), 0);
  taken := wait <= p_patience;
  if taken then
    update caudal.channel_limit l set repaid = greatest(l.repaid, at) + make_interval(secs => k.gap)
      from unnest(p_keys, p_intervals) k(key, gap) where l.account_id = p_account and l.key = k.key;
  end if;
  select c.contact, c.wrote_at into contact, wrote_at from caudal.channel_contact c
    where c.account_id = p_account and c.address = p_address;
  return next;
end $$;

-- The provider said "too much": hold this bucket for `p_first` * `p_factor` ^ strikes seconds, at most `p_most`.
create function caudal.channel_hold(p_account bigint, p_key text, p_first float8, p_factor float8, p_most float8)
  returns float8 language sql as $$
  insert into caudal.channel_limit as l (account_id, key, not_before, strikes)
    values (p_account, p_key, clock_timestamp() + make_interval(secs => p_first), 1)
    on conflict (account_id, key) do update set
      not_before = clock_timestamp() + make_interval(secs => least(p_first * p_factor ^ least(l.strikes, 20), p_most)),
      -- Many calls are under way when the first is refused; they are one strike.
      strikes = l.strikes + case when l.not_before > clock_timestamp() then 0 else 1 end
    returning extract(epoch from not_before - clock_timestamp())
$$;

-- The account behind a webhook's address, for the API, which does not know the tenant yet: whoever asks must know the
-- hook, and the secrets are sealed.
create function caudal.channel_hook(p_hook uuid) returns table (account caudal.channel_account, tenant text)
  language sql stable security definer set search_path = caudal, pg_catalog, pg_temp
  as $$ select a, t.name from channel_account a join tenant t on t.id = a.tenant_id where a.hook = p_hook $$;
revoke execute on function caudal.channel_hook(uuid) from public;
grant execute on function caudal.channel_hook(uuid) to caudal_app, caudal_messaging;

-- How each worker's breakers stand, for people to look at (messaging/breaker_board.py). Unlogged: after a crash of the
-- server every worker writes its own anew.
create unlogged table caudal.breaker (
  worker text not null,
  account_id bigint not null references caudal.channel_account on delete cascade,
  tenant_id int not null,
  state text not null check (state in ('closed', 'open', 'half_open')),
  since timestamptz not null default now(),
  at timestamptz not null default now(),
  primary key (worker, account_id)
);
create index breaker_account on caudal.breaker (account_id);
alter table caudal.breaker enable row level security;
create policy tenant on caudal.breaker using (tenant_id = (select caudal.current_tenant()));
create policy messaging on caudal.breaker to caudal_messaging using (true) with check (true);
grant select on caudal.breaker to caudal_app;
grant select, insert, update, delete on caudal.breaker to caudal_messaging;
