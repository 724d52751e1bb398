// Writes a roster, a message and a read into each of 40 conversations.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

func main() {
	// The defaults are right: murmur2 of the key, all replicas acknowledge, idempotence.
	client, err := kgo.NewClient(
		kgo.SeedBrokers(cmp.Or(os.Getenv("BOOTSTRAP"), "localhost:9092")),
		kgo.DefaultProduceTopic(cmp.Or(os.Getenv("TOPIC"), "receipts.events")),
	)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	var records []*kgo.Record
	for number := range 40 {
		conversation := fmt.Sprintf("%s%d", cmp.Or(os.Getenv("PREFIX"), "chat-"), number)
		for _, event := range events(conversation) {
			value, err := json.Marshal(event)
			if err != nil {
				log.Fatal(err)
			}
			records = append(records, &kgo.Record{Key: []byte("default/" + conversation), Value: value})
		}
	}
	if err := client.ProduceSync(context.Background(), records...).FirstErr(); err != nil {
		log.Fatal(err)
	}
}

func events(conversation string) []map[string]any {
	return []map[string]any{
		{"type": "members.changed", "conversation_id": conversation, "joined": []string{"alice", "bob"}},
		{"type": "message.sent", "conversation_id": conversation, "message_id": "m1", "sender_id": "alice",
			"sent_at_ms": time.Now().UnixMilli(), "need_read_receipt": true},
		{"type": "message.read", "conversation_id": conversation, "message_ids": []string{"m1"}, "reader_id": "bob"},
	}
}
