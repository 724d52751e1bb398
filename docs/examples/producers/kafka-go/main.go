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

	"github.com/segmentio/kafka-go"
)

func main() {
	// This client has no idempotence: its retry after a timeout may write a batch twice.
	writer := &kafka.Writer{
		Addr:         kafka.TCP(cmp.Or(os.Getenv("BOOTSTRAP"), "localhost:9092")),
		Topic:        cmp.Or(os.Getenv("TOPIC"), "receipts.events"),
		Balancer:     kafka.Murmur2Balancer{}, // needed: the default ignores the key
		RequiredAcks: kafka.RequireAll,        // the default waits for nobody
	}
	defer writer.Close()

	var messages []kafka.Message
	for number := range 40 {
		conversation := fmt.Sprintf("%s%d", cmp.Or(os.Getenv("PREFIX"), "chat-"), number)
		for _, event := range events(conversation) {
			value, err := json.Marshal(event)
			if err != nil {
				log.Fatal(err)
			}
			messages = append(messages, kafka.Message{Key: []byte("default/" + conversation), Value: value})
		}
	}
	if err := writer.WriteMessages(context.Background(), messages...); err != nil {
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
