// Writes a roster, a message and a read into each of 40 conversations.
import { Kafka, Partitioners } from "kafkajs";

const { BOOTSTRAP = "localhost:9092", TOPIC = "receipts.events", PREFIX = "chat-" } = process.env;

function events(conversation_id) {
  return [
    { type: "members.changed", conversation_id, joined: ["alice", "bob"] },
    { type: "message.sent", conversation_id, message_id: "m1", sender_id: "alice", sent_at_ms: Date.now(), need_read_receipt: true },
    { type: "message.read", conversation_id, message_ids: ["m1"], reader_id: "bob" },
  ];
}

const kafka = new Kafka({ brokers: BOOTSTRAP.split(",") });
const producer = kafka.producer({
  // The default since 2.0, murmur2. Its own warning at the start names LegacyPartitioner, which is wrong here.
  createPartitioner: Partitioners.DefaultPartitioner,
  idempotent: true,
});
await producer.connect();
const messages = Array.from({ length: 40 }, (_, number) => `${PREFIX}${number}`).flatMap((conversation) =>
  events(conversation).map((event) => ({ key: `default/${conversation}`, value: JSON.stringify(event) })),
);
await producer.send({ topic: TOPIC, messages });
await producer.disconnect();
