import com.fasterxml.jackson.databind.ObjectMapper;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.apache.flink.api.common.serialization.SerializationSchema;
import org.apache.flink.connector.base.DeliveryGuarantee;
import org.apache.flink.connector.kafka.sink.KafkaRecordSerializationSchema;
import org.apache.flink.connector.kafka.sink.KafkaSink;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;

/** Writes a roster, a message and a read into each of 40 conversations. */
public final class Example {
    private static final ObjectMapper JSON = new ObjectMapper();

    /** An event: its key and its JSON. */
    public record Event(String key, String json) {}

    // Classes, because the connector cannot infer the types of lambdas.
    static final class KeyBytes implements SerializationSchema<Event> {
        @Override
        public byte[] serialize(Event event) {
            return event.key().getBytes(StandardCharsets.UTF_8);
        }
    }

    static final class JsonBytes implements SerializationSchema<Event> {
        @Override
        public byte[] serialize(Event event) {
            return event.json().getBytes(StandardCharsets.UTF_8);
        }
    }

    public static void main(String[] arguments) throws Exception {
        var env = System.getenv();
        var events = new ArrayList<Event>();
        for (int number = 0; number < 40; number++) {
            var conversation = env.getOrDefault("PREFIX", "chat-") + number;
            for (var event : events(conversation)) {
                events.add(new Event("default/" + conversation, JSON.writeValueAsString(event)));
            }
        }
        var sink = KafkaSink.<Event>builder()
            .setBootstrapServers(env.getOrDefault("BOOTSTRAP", "localhost:9092"))
            // EXACTLY_ONCE holds partitions up from checkpoint to checkpoint: a doubled event is cheaper.
            .setDeliveryGuarantee(DeliveryGuarantee.AT_LEAST_ONCE)
            .setRecordSerializer(KafkaRecordSerializationSchema.<Event>builder()
                .setTopic(env.getOrDefault("TOPIC", "receipts.events"))
                // needed: without a key the sink spreads a conversation over all partitions
                .setKeySerializationSchema(new KeyBytes())
                .setValueSerializationSchema(new JsonBytes())
                .build())
            .build();
        var flink = StreamExecutionEnvironment.getExecutionEnvironment();
        // All events of a conversation pass one writer, so they stay in their order.
        flink.fromData(events).keyBy(Event::key).sinkTo(sink);
        flink.execute("receipts");
    }

    private static List<Map<String, Object>> events(String conversation) {
        return List.of(
            Map.of("type", "members.changed", "conversation_id", conversation, "joined", List.of("alice", "bob")),
            Map.of("type", "message.sent", "conversation_id", conversation, "message_id", "m1", "sender_id", "alice",
                "sent_at_ms", System.currentTimeMillis(), "need_read_receipt", true),
            Map.of("type", "message.read", "conversation_id", conversation, "message_ids", List.of("m1"),
                "reader_id", "bob"));
    }
}
