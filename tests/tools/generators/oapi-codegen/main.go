// Posts and reads with the client that oapi-codegen makes; prints what it saw as JSON.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"os"
	"sort"

	"receipts.example/generated/receipts"
)

const (
	conversation = "team/7?x=ü"
	message      = "p/1"
)

func main() {
	ctx := context.Background()
	credentials := func(_ context.Context, request *http.Request) error {
		if token := os.Getenv("RECEIPTS_TOKEN"); token != "" {
			request.Header.Set("Authorization", "Bearer "+token)
		}
		return nil
	}
	client, err := receipts.NewClientWithResponses(os.Getenv("RECEIPTS_URL"), receipts.WithRequestEditorFn(credentials))
	check(err)

	joined := []string{"alice", "bob/1", "cy ü", "dan", "eve"}
	var join, send, read, mark receipts.Event
	check(join.FromMembersChanged(receipts.MembersChanged{
		Type: "members.changed", ConversationId: conversation, Joined: &joined,
	}))
	asks := true
	check(send.FromMessageSent(receipts.MessageSent{
		Type: "message.sent", ConversationId: conversation, MessageId: message, SenderId: "alice",
		SentAtMs: 1780000000000, NeedReadReceipt: &asks,
	}))
	readAtMs := int64(1780000004000)
	check(read.FromMessageRead(receipts.MessageRead{
		Type: "message.read", ConversationId: conversation, ReaderId: "bob/1", MessageIds: []string{message},
		ReadAtMs: &readAtMs,
	}))
	upTo := message
	check(mark.FromConversationRead(receipts.ConversationRead{
		Type: "conversation.read", ConversationId: conversation, ReaderId: "cy ü", UpToMessageId: &upTo,
	}))
	bodies := make([]receipts.Events, 3)
	check(bodies[0].FromEvents1([]receipts.Event{join, send}))
	check(bodies[1].FromEvent(read))
	check(bodies[2].FromEvent(mark))
	accepted, position := []int{}, ""
	for _, body := range bodies {
		answer, err := client.PostEventsWithResponse(ctx, nil, body)
		check(err)
		if answer.JSON202 == nil {
			log.Fatalf("%s: %s", answer.Status(), answer.Body)
		}
		accepted = append(accepted, int(answer.JSON202.Accepted))
		position = answer.JSON202.Position
	}

	receipt, err := client.GetReceiptWithResponse(ctx, conversation, message, &receipts.GetReceiptParams{ReceiptsMinPosition: &position})
	check(err)
	inConversation := conversation
	answer, err := client.QueryReceiptsWithResponse(ctx,
		&receipts.QueryReceiptsParams{ReceiptsMinPosition: &position},
		receipts.ReceiptsQuery{ConversationId: &inConversation, MessageIds: []string{message, "nothing"}})
	check(err)
	statuses := []receipts.Status{}
	for _, one := range answer.JSON200.Receipts {
		statuses = append(statuses, one.Status)
	}
	unread, pageReadCount, limit := []string{}, int32(0), int32(1)
	for cursor, done := (*string)(nil), false; !done; {
		page, err := client.ListMembersWithResponse(ctx, conversation, message, &receipts.ListMembersParams{
			Filter: "unread", Limit: &limit, Cursor: cursor, ReceiptsMinPosition: &position,
		})
		check(err)
		for _, member := range page.JSON200.Members {
			unread = append(unread, member.UserId)
		}
		pageReadCount = *page.JSON200.Receipt.ReadCount
		cursor = page.JSON200.NextCursor
		done = cursor == nil
	}
	sort.Strings(unread)
	markOfCy, err := client.GetReadMarkWithResponse(ctx, conversation, "cy ü", &receipts.GetReadMarkParams{ReceiptsMinPosition: &position})
	check(err)
	missing, err := client.GetReceiptWithResponse(ctx, conversation, "no/thing", nil)
	check(err)
	var later receipts.Receipt
	check(json.Unmarshal([]byte(`{"tenant":"t","message_id":"m","status":"ok","new_field":1}`), &later))

	found := receipt.JSON200
	seen, err := json.Marshal(map[string]any{
		"accepted": accepted, "tenant": found.Tenant, "status": found.Status,
		"counts":     []int32{*found.AudienceCount, *found.ReadCount, *found.UnreadCount},
		"sent_at_ms": found.SentAtMs, "query": statuses, "unread": unread, "page_read_count": pageReadCount,
		"mark": []any{markOfCy.JSON200.UpToMessageId, markOfCy.JSON200.UpToSentAtMs}, "missing": missing.StatusCode(),
		"unknown_field": later.Status,
	})
	check(err)
	fmt.Println(string(seen))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
