package example;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import org.springframework.beans.factory.annotation.Value;
import org.springframework.boot.ApplicationRunner;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.context.annotation.Bean;
import org.springframework.kafka.core.KafkaTemplate;

/** Writes a roster, a message and a read into each of 40 conversations. */
@SpringBootApplication
public class Example {
    public static void main(String[] arguments) {
        SpringApplication.run(Example.class, arguments);
    }

    @Bean
    ApplicationRunner writer(
            KafkaTemplate<String, Object> kafka, @Value("${topic}") String topic, @Value("${prefix}") String prefix) {
        return arguments -> {
            var written = new ArrayList<CompletableFuture<?>>();
            for (int number = 0; number < 40; number++) {
                var conversation = prefix + number;
                for (var event : events(conversation)) {
                    written.add(kafka.send(topic, "default/" + conversation, event));
                }
            }
            written.forEach(CompletableFuture::join); // throws if an event was not written
        };
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
