// A whole service per test, in memory, as the double of the real one. RECEIPTS_BIN names the binary.
package receipts_test

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"testing"
)

// start returns the address of a service with its own log, which ends with the test: the system closes
// the pipe even if the test is killed.
func start(t *testing.T) string {
	t.Helper()
	service := exec.Command(cmp.Or(os.Getenv("RECEIPTS_BIN"), "receipts"), "serve", "--ephemeral", "--until-stdin-closes")
	service.Stderr = os.Stderr
	if _, err := service.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stdout, err := service.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := service.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = service.Process.Kill()
		_ = service.Wait()
	})
	var ready struct{ HTTP string }
	if err := json.NewDecoder(stdout).Decode(&ready); err != nil {
		t.Fatal(err)
	}
	return ready.HTTP
}

func call[Answer any](t *testing.T, method, url, position string, body any) (answer Answer) {
	t.Helper()
	sent, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	request, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(sent))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	if position != "" {
		request.Header.Set("Receipts-Min-Position", position)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode >= 300 {
		t.Fatal(response.Status)
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		t.Fatal(err)
	}
	return answer
}

func TestBobHasRead(t *testing.T) {
	url := start(t)
	group := "g-" + rand.Text()
	type object = map[string]any
	written := call[struct{ Position string }](t, http.MethodPost, url+"/v1/events", "", []object{
		{"type": "members.changed", "conversation_id": group, "joined": []string{"alice", "bob", "carol"}},
		{"type": "message.sent", "conversation_id": group, "message_id": "m1", "sender_id": "alice",
			"sent_at_ms": 1780000000000, "need_read_receipt": true},
		{"type": "message.read", "conversation_id": group, "message_ids": []string{"m1"}, "reader_id": "bob"},
	})
	// The position makes the answer include the events, so no test sleeps.
	receipt := call[struct {
		Read   int `json:"read_count"`
		Unread int `json:"unread_count"`
	}](t, http.MethodGet, url+"/v1/conversations/"+group+"/messages/m1/receipt", written.Position, nil)
	if receipt.Read != 1 || receipt.Unread != 1 {
		t.Fatalf("%+v", receipt)
	}
}
