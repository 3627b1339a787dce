-- What lies or may come to lie in the object store without a file that names it: written before the bytes, gone in
-- the transaction that makes the file. What stays here too long is an orphan, and is removed.
create table caudal.object_intent (
  path text primary key,
  tenant_id int references caudal.tenant, -- null: of a tenant that is gone; only the sweep sees it
  since timestamptz not null default now()
);
create index object_intent_since on caudal.object_intent (since);

-- An upload in several requests (tus). Its id becomes the file's.
create table caudal.upload (
  id uuid primary key,
  tenant_id int not null references caudal.tenant,
  conversation text not null,
  uploader text not null,
  filename text not null,
  content_type text not null,
  size_bytes bigint not null check (size_bytes >= 0),
  received bigint not null default 0 check (received between 0 and size_bytes),
  expires_at timestamptz not null
);
create index upload_expires on caudal.upload (expires_at);

-- The key is where a part begins: of two requests that bring the same bytes, one is the first.
create table caudal.upload_part (
  upload_id uuid not null references caudal.upload on delete cascade,
  tenant_id int not null,
  start bigint not null,
  size_bytes bigint not null check (size_bytes > 0),
  path text not null,
  primary key (upload_id, start)
);

do $$
declare name text;
begin
  foreach name in array array['object_intent', 'upload', 'upload_part'] loop
    execute format('alter table caudal.%I enable row level security', name);
    execute format('create policy tenant on caudal.%I using (tenant_id = (select caudal.current_tenant()))', name);
    execute format('create policy messaging on caudal.%I to caudal_messaging using (true) with check (true)', name);
    execute format('grant select, insert, update, delete on caudal.%I to caudal_app, caudal_messaging', name);
  end loop;
end $$;
-- Connectors keep what people send.
grant insert on caudal.file to caudal_messaging;
create trigger room before insert on caudal.object_intent for each row execute function caudal.room_for_files();
