// Writes a roster, a message and a read into each of 40 conversations.
package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/IBM/sarama"
)

func main() {
	config := sarama.NewConfig()
	config.Version = sarama.V3_6_0_0
	config.Producer.Partitioner = sarama.NewMurmur2Partitioner // needed: the default is FNV-1a
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Producer.Idempotent = true
	config.Net.MaxOpenRequests = 1 // which Idempotent demands
	config.Producer.Return.Successes = true
	producer, err := sarama.NewSyncProducer([]string{cmp.Or(os.Getenv("BOOTSTRAP"), "localhost:9092")}, config)
	if err != nil {
		log.Fatal(err)
	}
	defer producer.Close()

	topic := cmp.Or(os.Getenv("TOPIC"), "receipts.events")
	var messages []*sarama.ProducerMessage
	for number := range 40 {
		conversation := fmt.Sprintf("%s%d", cmp.Or(os.Getenv("PREFIX"), "chat-"), number)
		for _, event := range events(conversation) {
			value, err := json.Marshal(event)
			if err != nil {
				log.Fatal(err)
			}
			key := sarama.StringEncoder("default/" + conversation)
			messages = append(messages, &sarama.ProducerMessage{Topic: topic, Key: key, Value: sarama.ByteEncoder(value)})
		}
	}
	if err := producer.SendMessages(messages); err != nil {
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
