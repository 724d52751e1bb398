// Posts and reads with the client that ogen makes; prints what it saw as JSON.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"sort"

	"github.com/ogen-go/ogen/ogenerrors"

	"receipts.example/generated/receipts"
)

const (
	conversation = "team/7?x=ü"
	message      = "p/1"
)

// credentials returns the bearer token of the environment, if there is one.
type credentials struct{}

func (credentials) Bearer(context.Context, receipts.OperationName) (receipts.Bearer, error) {
	token := os.Getenv("RECEIPTS_TOKEN")
	if token == "" {
		return receipts.Bearer{}, ogenerrors.ErrSkipClientSecurity
	}
	return receipts.Bearer{Token: token}, nil
}

func main() {
	ctx := context.Background()
	client, err := receipts.NewClient(os.Getenv("RECEIPTS_URL"), credentials{})
	check(err)

	joined := receipts.NewMembersChangedEvent(receipts.MembersChanged{
		Type: "members.changed", ConversationID: conversation,
		Joined: receipts.NewOptNilCommonOptionalIds([]receipts.CommonID{"alice", "bob/1", "cy ü", "dan", "eve"}),
	})
	sent := receipts.NewMessageSentEvent(receipts.MessageSent{
		Type: "message.sent", ConversationID: conversation, MessageID: message, SenderID: "alice",
		SentAtMs: 1780000000000, NeedReadReceipt: receipts.NewOptNilCommonFlag(true),
	})
	read := receipts.NewMessageReadEvent(receipts.MessageRead{
		Type: "message.read", ConversationID: conversation, ReaderID: "bob/1", MessageIds: []receipts.CommonID{message},
		ReadAtMs: receipts.NewOptNilCommonOptionalTimeMs(1780000004000),
	})
	mark := receipts.NewConversationReadEvent(receipts.ConversationRead{
		Type: "conversation.read", ConversationID: conversation, ReaderID: "cy ü",
		UpToMessageID: receipts.NewOptNilCommonOptionalID(message),
	})
	accepted, position := []int{}, ""
	for _, body := range []receipts.Events{
		receipts.NewEventArrayEvents([]receipts.Event{joined, sent}),
		receipts.NewEventEvents(read), receipts.NewEventEvents(mark),
	} {
		answer, err := client.PostEvents(ctx, &body, receipts.PostEventsParams{})
		check(err)
		taken, ok := answer.(*receipts.AcceptedHeaders)
		if !ok {
			log.Fatalf("%T: %+v", answer, answer)
		}
		accepted = append(accepted, int(taken.Response.Accepted))
		position = taken.Response.Position
	}

	minPosition := receipts.NewOptString(position)
	get, err := client.GetReceipt(ctx, receipts.GetReceiptParams{
		ConversationID: conversation, MessageID: message, ReceiptsMinPosition: minPosition,
	})
	check(err)
	receipt := get.(*receipts.ReceiptHeaders).Response
	answer, err := client.QueryReceipts(ctx, &receipts.ReceiptsQuery{
		ConversationID: receipts.NewOptNilString(conversation), MessageIds: []string{message, "nothing"},
	}, receipts.QueryReceiptsParams{ReceiptsMinPosition: minPosition})
	check(err)
	statuses := []receipts.Status{}
	for _, one := range answer.(*receipts.ReceiptsAnswerHeaders).Response.Receipts {
		statuses = append(statuses, one.Status)
	}
	unread, pageReadCount := []string{}, int32(0)
	for cursor, done := (receipts.OptString{}), false; !done; {
		answer, err := client.ListMembers(ctx, receipts.ListMembersParams{
			ConversationID: conversation, MessageID: message, Filter: "unread", Limit: receipts.NewOptInt32(1),
			Cursor: cursor, ReceiptsMinPosition: minPosition,
		})
		check(err)
		page := answer.(*receipts.MembersPageHeaders).Response
		for _, member := range page.Members {
			unread = append(unread, member.UserID)
		}
		pageReadCount = page.Receipt.ReadCount.Value
		done = page.NextCursor.Null
		cursor = receipts.NewOptString(page.NextCursor.Value)
	}
	sort.Strings(unread)
	markOfCy, err := client.GetReadMark(ctx, receipts.GetReadMarkParams{
		ConversationID: conversation, UserID: "cy ü", ReceiptsMinPosition: minPosition,
	})
	check(err)
	found := markOfCy.(*receipts.ReadMarkHeaders).Response
	missing, err := client.GetReceipt(ctx, receipts.GetReceiptParams{ConversationID: conversation, MessageID: "no/thing"})
	check(err)
	var later receipts.Receipt
	check(later.UnmarshalJSON([]byte(`{"tenant":"t","message_id":"m","status":"ok","new_field":1}`)))

	seen, err := json.Marshal(map[string]any{
		"accepted": accepted, "tenant": receipt.Tenant, "status": receipt.Status,
		"counts":     []int32{receipt.AudienceCount.Value, receipt.ReadCount.Value, receipt.UnreadCount.Value},
		"sent_at_ms": receipt.SentAtMs.Value, "query": statuses, "unread": unread, "page_read_count": pageReadCount,
		"mark": []any{found.UpToMessageID.Value, found.UpToSentAtMs}, "missing": missing.(*receipts.R404Headers).Response.Status,
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
