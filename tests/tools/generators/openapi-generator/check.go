// Posts and reads with the client that openapi-generator makes for Go; prints what it saw as JSON.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"sort"

	receipts "github.com/GIT_USER_ID/GIT_REPO_ID"
)

const (
	conversation = "team/7?x=ü"
	message      = "p/1"
)

func main() {
	configuration := receipts.NewConfiguration()
	configuration.Servers = receipts.ServerConfigurations{{URL: os.Getenv("RECEIPTS_URL")}}
	ctx := context.Background()
	if token := os.Getenv("RECEIPTS_TOKEN"); token != "" {
		ctx = context.WithValue(ctx, receipts.ContextAccessToken, token)
	}
	client := receipts.NewAPIClient(configuration)

	joined := receipts.NewMembersChanged("members.changed", conversation)
	joined.SetJoined([]string{"alice", "bob/1", "cy ü", "dan", "eve"})
	sent := receipts.NewMessageSent("message.sent", conversation, message, "alice", 1780000000000)
	sent.SetNeedReadReceipt(true)
	both := []receipts.Event{receipts.MembersChangedAsEvent(joined), receipts.MessageSentAsEvent(sent)}
	read := receipts.NewMessageRead("message.read", conversation, []string{message}, "bob/1")
	read.SetReadAtMs(1780000004000)
	mark := receipts.NewConversationRead("conversation.read", conversation, "cy ü")
	mark.SetUpToMessageId(message)
	one, another := receipts.MessageReadAsEvent(read), receipts.ConversationReadAsEvent(mark)
	accepted, position := []int32{}, ""
	for _, body := range []receipts.Events{
		receipts.ArrayOfEventAsEvents(&both), receipts.EventAsEvents(&one), receipts.EventAsEvents(&another),
	} {
		answer, _, err := client.IngestAPI.PostEvents(ctx).Events(body).Execute()
		check(err)
		accepted = append(accepted, answer.Accepted)
		position = answer.Position
	}

	receipt, _, err := client.QueryAPI.GetReceipt(ctx, conversation, message).ReceiptsMinPosition(position).Execute()
	check(err)
	query := receipts.NewReceiptsQuery([]string{message, "nothing"})
	query.SetConversationId(conversation)
	answer, _, err := client.QueryAPI.QueryReceipts(ctx).ReceiptsQuery(*query).ReceiptsMinPosition(position).Execute()
	check(err)
	statuses := []receipts.Status{}
	for _, one := range answer.Receipts {
		statuses = append(statuses, one.Status)
	}
	unread, pageReadCount := []string{}, int32(0)
	for cursor, done := "", false; !done; {
		request := client.QueryAPI.ListMembers(ctx, conversation, message).Filter("unread").Limit(1)
		if cursor != "" {
			request = request.Cursor(cursor)
		}
		page, _, err := request.ReceiptsMinPosition(position).Execute()
		check(err)
		for _, member := range page.Members {
			unread = append(unread, member.UserId)
		}
		pageReadCount = page.Receipt.GetReadCount()
		next := page.NextCursor.Get()
		done = next == nil
		if !done {
			cursor = *next
		}
	}
	sort.Strings(unread)
	markOfCy, _, err := client.QueryAPI.GetReadMark(ctx, conversation, "cy ü").ReceiptsMinPosition(position).Execute()
	check(err)
	_, missing, err := client.QueryAPI.GetReceipt(ctx, conversation, "no/thing").Execute()
	if err == nil {
		log.Fatal("a missing message has a receipt")
	}
	var later receipts.Receipt
	check(json.Unmarshal([]byte(`{"tenant":"t","message_id":"m","status":"ok","new_field":1}`), &later))

	seen, err := json.Marshal(map[string]any{
		"accepted": accepted, "tenant": receipt.Tenant, "status": receipt.Status,
		"counts":     []int32{receipt.GetAudienceCount(), receipt.GetReadCount(), receipt.GetUnreadCount()},
		"sent_at_ms": receipt.GetSentAtMs(), "query": statuses, "unread": unread, "page_read_count": pageReadCount,
		"mark": []any{markOfCy.GetUpToMessageId(), markOfCy.UpToSentAtMs}, "missing": missing.StatusCode,
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
