# Varnish 7.1 in front of receipts. docs/behind-a-proxy.md says what each line is for.

vcl 4.1;

backend receipts {
    .host = "127.0.0.1";
    .port = "8080";
    # More than a read may wait for its position (30 s), and than a heartbeat (4 s).
    .first_byte_timeout = 60s;
    .between_bytes_timeout = 60s;
}

sub vcl_recv {
    # Varnish cuts an answer after 600 s (send_timeout), but not what it only pipes.
    if (req.url ~ "^/v1/updates") {
        return (pipe);
    }
    # No answer may be kept: all of them say no-store.
    return (pass);
}

sub vcl_pipe {
    # The connection ends with its stream, so that no other request skips the rules above.
    set bereq.http.Connection = "close";
}
