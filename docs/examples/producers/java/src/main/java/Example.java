import com.fasterxml.jackson.databind.ObjectMapper;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Future;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.serialization.StringSerializer;

/** Writes a roster, a message and a read into each of 40 conversations. */
public final class Example {
    public static void main(String[] arguments) throws Exception {
        var env = System.getenv();
        var topic = env.getOrDefault("TOPIC", "receipts.events");
        var json = new ObjectMapper();
        // The defaults are right: murmur2 of the key, acks=all, idempotence.
        Map<String, Object> settings =
            Map.of(ProducerConfig.BOOTSTRAP_SERVERS_CONFIG, env.getOrDefault("BOOTSTRAP", "localhost:9092"));
        try (var producer = new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer())) {
            var written = new ArrayList<Future<RecordMetadata>>();
            for (int number = 0; number < 40; number++) {
                var conversation = env.getOrDefault("PREFIX", "chat-") + number;
                for (var event : events(conversation)) {
                    var value = json.writeValueAsString(event);
                    written.add(producer.send(new ProducerRecord<>(topic, "default/" + conversation, value)));
                }
            }
            for (var one : written) {
                one.get(); // throws if the event was not written
            }
        }
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
