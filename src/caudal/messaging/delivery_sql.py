"""The queries of `deliveries`."""

OUTBOUND = """
select d.id as delivery_id, d.channel, d.address, m.id::text as message_id, c.name as conversation_id,
       m.sender as sender_id, m.recipient as recipient_id, m.content, m.sent_at, m.file_id::text,
       t.name as tenant, f.filename, f.size_bytes, f.checksum, f.content_type
from caudal.delivery d join caudal.message m on m.id = d.message_id
join caudal.conversation c on c.id = d.conversation_id
join caudal.tenant t on t.id = d.tenant_id
left join caudal.file f on f.id = m.file_id
where d.id = any($1) order by d.id
"""

# Those that wait behind one that is settled now; the later ones among them wait for the next.
BEHIND = """
update caudal.delivery d set parked = false, next_attempt_at = null
where d.id in (
  select n.id from caudal.delivery s join caudal.delivery n
    on n.conversation_id = s.conversation_id and n.channel = s.channel and n.address = s.address
  where s.id = any($1) and n.id > s.id and n.state in ('pending', 'sending') and n.channel <> 'app'
    and n.parked and n.next_attempt_at = 'infinity'
  order by n.id limit $2)
returning d.id
"""

EXPIRED = """
select id, attempt from caudal.delivery where state = 'pending' and channel <> 'app' and expires_at < now()
order by id limit $1
"""

# Whoever called it is gone, and its record has not come again either.
SILENT = """
select id, attempt from caudal.delivery
where state = 'sending' and channel <> 'app' and called_at < now() - $1::interval
order by id limit $2
"""

RESEND = """
update caudal.delivery d set state = 'pending', parked = false, next_attempt_at = null, reason = null,
  reason_code = null, failures = 0, expires_at = now() + $3::interval
from caudal.message m
where m.id = d.message_id and d.id = $1 and d.tenant_id = $2 and d.channel <> 'app'
  and d.state in ('failed', 'unknown')
returning d.id
"""
REOPEN = """
update caudal.message m set status = 'SENT', reason = null from caudal.delivery d
where d.id = $1 and m.id = d.message_id and m.status = 'FAILED'
"""

# A person's own copies that they have not been shown yet.
SHOWN = """
select id from caudal.delivery
where tenant_id = $1 and channel = 'app' and address = $2 and message_id = any($3::uuid[]) and state = 'sent'
order by id
"""
