-- What people query: the contract's names, each tenant's own rows alone. The views run with their owner's
-- rights and are barriers, so that a reader needs no right on any table and no clever predicate sees a row early.

create view public.ts_measure with (security_barrier) as
  select t.name as tenant_id, d.name as device_id, r.name as point_id, s.ts,
         s.v_num, s.v_bool, s.v_text, u.name as unit, s.qual, s.meta
  from caudal.series r
  join caudal.tenant t on t.id = r.tenant_id
  join caudal.device d on d.id = r.device_id
  join caudal.sample s on s.series = r.id
  left join caudal.unit u on u.id = s.unit
  where (r.tenant_id = (select caudal.current_tenant()) or (select caudal.sees_all()));

-- Bytes that are no UTF-8 come escaped; nothing else may raise here, or one message hides all.
create function caudal.readable(raw bytea) returns text
  language plpgsql immutable parallel safe set search_path = pg_catalog as $$
begin
  return convert_from(raw, 'UTF8');
exception when others then
  return encode(raw, 'escape');
end $$;

create view public.ingest_errors with (security_barrier) as
  select e.id, e.tenant_name as tenant_id, e.topic, caudal.readable(e.payload) as payload,
         e.reason || ': ' || e.sentence as reason, e.received as ts
  from caudal.dead_letter e
  where (e.tenant_id = (select caudal.current_tenant()) or (select caudal.sees_all()));

create view public.cmd_ack with (security_barrier) as
  select t.name as tenant_id, d.name as device_id, a.cmd_id, a.ok, a.ts_exec, a.payload, a.created_at, a.updated_at
  from caudal.ack a
  join caudal.tenant t on t.id = a.tenant_id
  join caudal.device d on d.id = a.device_id
  where (a.tenant_id = (select caudal.current_tenant()) or (select caudal.sees_all()));

create view public.tds_new_gateway with (security_barrier) as
  select g.id, g.tenant_id::bigint as conta_id, g.mac, g.code as codigo, g.name as nome, g.is_online,
         g.last_heard as last_seen
  from caudal.gateway g
  where (g.tenant_id = (select caudal.current_tenant()) or (select caudal.sees_all()));

create view public.tds_new_leitura_dispositivo with (security_barrier) as
  select s.ts as time, d.tenant_id::bigint as conta_id, d.gateway_id, d.id as dispositivo_id,
         -- Beyond numeric(15,4) there is no answer; an error would hide the rows beside it.
         case when abs(s.v_num) < 1e11 then s.v_num::numeric(15,4) end as valor,
         u.name as unidade, s.meta as payload_raw
  from caudal.series r
  join caudal.device d on d.id = r.device_id
  join caudal.sample s on s.series = r.id
  left join caudal.unit u on u.id = s.unit
  where (r.tenant_id = (select caudal.current_tenant()) or (select caudal.sees_all())) and d.gateway_id is not null and r.name = 'valor';

grant select on public.ts_measure, public.ingest_errors, public.cmd_ack, public.tds_new_gateway,
  public.tds_new_leitura_dispositivo to caudal_reader, caudal_app;
