// sse-clients NAME URL: follows a stream by one client and prints each event as a line of JSON, and
// {"end": why} when the client gives up.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"time"

	r3labs "github.com/r3labs/sse/v2"
	gosse "github.com/tmaxmax/go-sse"
)

func say(fields map[string]string) {
	line, _ := json.Marshal(fields)
	fmt.Println(string(line))
}

func ended(err error) {
	if err == nil {
		say(map[string]string{"end": "it returned nil"})
	} else {
		say(map[string]string{"end": err.Error()})
	}
}

func subscribe(client *r3labs.Client) error {
	return client.SubscribeRaw(func(message *r3labs.Event) {
		say(map[string]string{"event": string(message.Event), "data": string(message.Data)})
	})
}

func main() {
	name, url := os.Args[1], os.Args[2]
	switch name {
	case "r3labs":
		ended(subscribe(r3labs.NewClient(url)))
	case "r3labs again":
		// The client keeps the last id.
		for client := r3labs.NewClient(url); ; time.Sleep(time.Second) {
			if err := subscribe(client); err != nil {
				say(map[string]string{"failed": err.Error()})
			}
		}
	case "go-sse":
		request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, url, nil)
		if err != nil {
			panic(err)
		}
		connection := gosse.DefaultClient.NewConnection(request)
		connection.SubscribeToAll(func(event gosse.Event) {
			say(map[string]string{"event": event.Type, "data": event.Data})
		})
		ended(connection.Connect())
	default:
		panic("no client " + name)
	}
}
