#!/usr/bin/env bash
# A Go client of Server-Sent Events whose server ends a response in order.
#
# One would guess: the client connects again, as the specification says and as browsers do, and as this
# client does after a broken connection. Ends in order are what a deployment, a proxy's limit on long
# responses and a drained server look like.
# What happens: r3labs/sse, a Go client, returns nil from Subscribe at the first orderly end: neither an
# error nor a retry. Where the connection breaks in the middle of a response, the same client connects
# again.
# Whom it hurts: backends that follow a stream for as long as they run. At the first rolling restart of
# the service they stop without an error, and look as if nothing happened any more. The npm package
# `eventsource` under the same server connects again after each end.
#
# Seen with: github.com/r3labs/sse/v2 v2.10.0 (Go proxy, Go 1.26), eventsource 4.1.0 (npm, Node 20).
set -euo pipefail
export PATH=$PATH:/usr/local/go/bin GOFLAGS=-mod=mod GOTOOLCHAIN=local
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
cd "$work"
export GOPATH=$work/go GOCACHE=$work/cache

npm init -y > /dev/null
npm install --silent --no-audit --no-fund eventsource@4.1.0
cat > server.mjs <<'JS'
// Each response has one event. The way it ends is the path: /orderly or /broken.
import { createServer } from "node:http";
const connections = { "/orderly": 0, "/broken": 0 };
createServer((request, response) => {
  if (request.url === "/count") return response.end(JSON.stringify(connections));
  connections[request.url] += 1;
  response.writeHead(200, { "Content-Type": "text/event-stream" });
  response.write("retry: 100\nid: 1\ndata: hello\n\n");
  setTimeout(() => (request.url === "/orderly" ? response.end() : response.destroy()), 200);
}).listen(0, "127.0.0.1", function () { console.log(this.address().port); });
JS
cat > client.mjs <<'JS'
import { EventSource } from "eventsource";
const source = new EventSource(`http://127.0.0.1:${process.argv[2]}/orderly`);
setTimeout(() => { source.close(); process.exit(0); }, 4000);
JS
cat > main.go <<'GO'
package main

import (
	"fmt"
	"os"
	"time"

	"github.com/r3labs/sse/v2"
)

func main() {
	ended := make(chan error, 1)
	go func() {
		ended <- sse.NewClient(os.Args[1]).SubscribeRaw(func(*sse.Event) {})
	}()
	select {
	case err := <-ended:
		fmt.Printf("returned %v\n", err)
	case <-time.After(4 * time.Second):
		fmt.Println("goes on")
	}
}
GO
go mod init find > /dev/null 2>&1
go get github.com/r3labs/sse/v2@v2.10.0 > /dev/null 2>&1
go build -o go-client .

serve() {
  node server.mjs > port &
  server=$!
  for _ in $(seq 50); do [ -s port ] && break; sleep 0.1; done
  port=$(cat port)
}
count() { node -e 'fetch(process.argv[1]).then((a) => a.json()).then((c) => console.log(c[process.argv[2]]))' "http://127.0.0.1:$port/count" "$1"; }

serve
node client.mjs "$port"
npm=$(count /orderly)
kill "$server"; : > port
serve
said=$(./go-client "http://127.0.0.1:$port/orderly")
orderly=$(count /orderly)
went_on=$(./go-client "http://127.0.0.1:$port/broken")
broken=$(count /broken)
kill "$server"

echo "eventsource 4.1.0, orderly ends: $npm connections in 4 s"
echo "r3labs/sse 2.10.0, orderly end: $orderly connection in 4 s, Subscribe $said"
echo "r3labs/sse 2.10.0, broken responses: $broken connections in 4 s, Subscribe $went_on"
[ "$npm" -gt 2 ] && [ "$orderly" = 1 ] && [ "$said" = "returned <nil>" ] &&
  [ "$broken" -gt 1 ] && [ "$went_on" = "goes on" ] ||
  { echo "this has changed" >&2; exit 1; }
