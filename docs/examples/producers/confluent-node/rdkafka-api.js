// Writes a roster, a message and a read into each of 40 conversations, by the API that resembles node-rdkafka.
import confluent from "@confluentinc/kafka-javascript";

const { BOOTSTRAP = "localhost:9092", TOPIC = "receipts.events", PREFIX = "chat-" } = process.env;

function events(conversation_id) {
  return [
    { type: "members.changed", conversation_id, joined: ["alice", "bob"] },
    { type: "message.sent", conversation_id, message_id: "m1", sender_id: "alice", sent_at_ms: Date.now(), need_read_receipt: true },
    { type: "message.read", conversation_id, message_ids: ["m1"], reader_id: "bob" },
  ];
}

const producer = new confluent.HighLevelProducer(
  { "metadata.broker.list": BOOTSTRAP, "enable.idempotence": true },
  {
    partitioner: "murmur2_random", // needed: the default is CRC-32
  },
);
await new Promise((resolve, reject) => producer.connect({}, (error) => (error ? reject(error) : resolve())));
const written = [];
for (let number = 0; number < 40; number++) {
  const conversation = `${PREFIX}${number}`;
  for (const event of events(conversation)) {
    const value = Buffer.from(JSON.stringify(event));
    written.push(
      new Promise((resolve, reject) => {
        const done = (error, offset) => (error ? reject(error) : resolve(offset));
        producer.produce(TOPIC, null, value, `default/${conversation}`, Date.now(), done);
      }),
    );
  }
}
await Promise.all(written);
await new Promise((resolve) => producer.disconnect(resolve));
