// Writes a roster, a message and a read into each of 40 conversations, by the API that resembles kafkajs.
import confluent from "@confluentinc/kafka-javascript";

const { BOOTSTRAP = "localhost:9092", TOPIC = "receipts.events", PREFIX = "chat-" } = process.env;

function events(conversation_id) {
  return [
    { type: "members.changed", conversation_id, joined: ["alice", "bob"] },
    { type: "message.sent", conversation_id, message_id: "m1", sender_id: "alice", sent_at_ms: Date.now(), need_read_receipt: true },
    { type: "message.read", conversation_id, message_ids: ["m1"], reader_id: "bob" },
  ];
}

// This API chooses murmur2 by default. The other one of the same package does not.
const kafka = new confluent.KafkaJS.Kafka({ kafkaJS: { brokers: BOOTSTRAP.split(",") } });
const producer = kafka.producer({ kafkaJS: { idempotent: true } });
await producer.connect();
const messages = Array.from({ length: 40 }, (_, number) => `${PREFIX}${number}`).flatMap((conversation) =>
  events(conversation).map((event) => ({ key: `default/${conversation}`, value: JSON.stringify(event) })),
);
await producer.send({ topic: TOPIC, messages });
await producer.disconnect();
