import okhttp3.OkHttpClient;
import okhttp3.Request;
import okhttp3.Response;
import okhttp3.sse.EventSource;
import okhttp3.sse.EventSourceListener;
import okhttp3.sse.EventSources;

/**
 * {@code Client URL}: follows a stream by okhttp-sse and prints each event as a line of JSON, and {@code {"end": why}} when it
 * gives up.
 */
public final class Client {
    public static void main(String[] arguments) {
        Request request = new Request.Builder().url(arguments[0]).build();
        EventSources.createFactory(new OkHttpClient()).newEventSource(request, new EventSourceListener() {
            @Override
            public void onEvent(EventSource source, String id, String type, String data) {
                heard(type == null ? "message" : type, data);
            }

            @Override
            public void onClosed(EventSource source) {
                say("end", "closed");
            }

            @Override
            public void onFailure(EventSource source, Throwable failure, Response response) {
                say("end", response != null && !response.isSuccessful() ? "status " + response.code() : String.valueOf(failure));
            }
        });
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
