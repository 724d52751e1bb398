import static org.junit.jupiter.api.Assertions.assertEquals;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

/** A whole service per test class, in memory, as the double of the real one. RECEIPTS_BIN names the binary. */
class ReceiptsTest {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final HttpClient HTTP = HttpClient.newHttpClient();
    private static Process service;
    private static String url;

    @BeforeAll
    static void start() throws Exception {
        var binary = System.getenv().getOrDefault("RECEIPTS_BIN", "receipts");
        // It ends when its standard input closes, which the system does even if this process is killed.
        service = new ProcessBuilder(binary, "serve", "--ephemeral", "--until-stdin-closes")
            .redirectError(ProcessBuilder.Redirect.INHERIT).start();
        url = JSON.readTree(service.inputReader().readLine()).get("http").asText();
    }

    @AfterAll
    static void stop() throws Exception {
        service.destroy();
        service.waitFor();
    }

    @Test
    void bobHasRead() throws Exception {
        // An id of its own keeps tests apart that share the service.
        var group = "g-" + UUID.randomUUID();
        var events = List.of(
            Map.of("type", "members.changed", "conversation_id", group, "joined", List.of("alice", "bob", "carol")),
            Map.of("type", "message.sent", "conversation_id", group, "message_id", "m1", "sender_id", "alice",
                "sent_at_ms", 1780000000000L, "need_read_receipt", true),
            Map.of("type", "message.read", "conversation_id", group, "message_ids", List.of("m1"), "reader_id", "bob"));
        var written = call(HttpRequest.newBuilder(URI.create(url + "/v1/events"))
            .header("Content-Type", "application/json")
            .POST(BodyPublishers.ofString(JSON.writeValueAsString(events))));
        // The position makes the answer include the events, so no test sleeps.
        var receipt = call(HttpRequest.newBuilder(URI.create(url + "/v1/conversations/" + group + "/messages/m1/receipt"))
            .header("Receipts-Min-Position", written.get("position").asText()));
        assertEquals(1, receipt.get("read_count").asInt());
        assertEquals(1, receipt.get("unread_count").asInt());
    }

    private static JsonNode call(HttpRequest.Builder request) throws Exception {
        var answer = HTTP.send(request.build(), BodyHandlers.ofString());
        assertEquals(2, answer.statusCode() / 100, answer::body);
        return JSON.readTree(answer.body());
    }
}
