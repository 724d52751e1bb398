import com.launchdarkly.eventsource.ErrorStrategy;
import com.launchdarkly.eventsource.EventSource;
import com.launchdarkly.eventsource.FaultEvent;
import com.launchdarkly.eventsource.MessageEvent;
import com.launchdarkly.eventsource.StreamEvent;
import java.net.URI;

/**
 * {@code Client URL}: follows a stream by okhttp-eventsource and prints each event as a line of JSON, and {@code {"end": why}} when
 * it gives up.
 */
public final class Client {
    public static void main(String[] arguments) {
        EventSource.Builder builder = new EventSource.Builder(URI.create(arguments[0]));
        // Its default strategy throws at the first fault.
        EventSource source = builder.errorStrategy(ErrorStrategy.alwaysContinue()).build();
        for (StreamEvent event : source.anyEvents()) {
            if (event instanceof MessageEvent message) {
                heard(message.getEventName(), message.getData());
            } else if (event instanceof FaultEvent fault) {
                say("failed", String.valueOf(fault.getCause()));
            }
        }
        say("end", "the iteration ended");
    }

    private static void heard(String type, String data) {
        System.out.println("{\"event\":" + quoted(type) + ",\"data\":" + quoted(data) + "}");
    }

    private static void say(String name, String text) {
        System.out.println("{" + quoted(name) + ":" + quoted(text) + "}");
    }

    private static String quoted(String text) {
        return '"' + text.replace("\\", "\\\\").replace("\"", "\\\"").replace("\n", "\\n") + '"';
    }
}
