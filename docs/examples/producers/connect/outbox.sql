-- The outbox: an application inserts an event in the same transaction as its own change.
create table outbox (
  id uuid primary key default gen_random_uuid(),
  aggregatetype text not null default 'receipts',
  aggregateid text not null, -- the key: {tenant}/{conversation_id}
  payload jsonb not null     -- the event
);

insert into outbox (aggregateid, payload)
select 'default/' || conversation, event || jsonb_build_object('conversation_id', conversation)
from (select :'prefix' || number as conversation, number from generate_series(0, 39) as number) as conversations,
  (values
    (1, '{"type": "members.changed", "joined": ["alice", "bob"]}'::jsonb),
    (2, jsonb_build_object('type', 'message.sent', 'message_id', 'm1', 'sender_id', 'alice', 'need_read_receipt', true,
      'sent_at_ms', (extract(epoch from now()) * 1000)::bigint)),
    (3, '{"type": "message.read", "message_ids": ["m1"], "reader_id": "bob"}')
  ) as events (step, event)
order by number, step;
