package contract_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rabbitmq/amqp091-go"

	"spamtraps.internal/libs/envelope"
	"spamtraps.internal/libs/rig"
)

const pythonConsumer, goConsumer = "docs/examples/consumer.py", "e2e/contract/consumer/main.go"

// read returns a file of the repository.
func read(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(rig.Root(t), path))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// TestPageHoldsThePrograms: who copies from the page gets what the tests have run.
func TestPageHoldsThePrograms(t *testing.T) {
	page := read(t, "docs/contract.md")
	for path, language := range map[string]string{pythonConsumer: "python", goConsumer: "go"} {
		if !strings.Contains(page, "```"+language+"\n"+read(t, path)+"```\n") {
			t.Errorf("docs/contract.md does not hold the very text of %s", path)
		}
	}
}

// TestPageListsEveryHeader compares the tables of the page with messages that have every header, both ways.
func TestPageListsEveryHeader(t *testing.T) {
	listed := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z0-9_]+)` \\| (integer|text|time|boolean|array of text) \\|").
		FindAllStringSubmatch(read(t, "docs/contract.md"), -1) {
		listed[row[1]] = row[2]
	}
	written := map[string]string{}
	for _, e := range complete() {
		m, err := e.Publishing(nil)
		if err != nil {
			t.Fatal(err)
		}
		for name, value := range m.Headers {
			written[name] = typeOf(value)
		}
	}
	for name, kind := range written {
		if listed[name] != kind {
			t.Errorf("header %s is written as %s, the page lists it as %q", name, kind, listed[name])
		}
	}
	for name := range listed {
		if written[name] == "" {
			t.Errorf("the page lists header %s, which is never written", name)
		}
	}
}

// complete returns an envelope with every field of LMTP, and one with every field of IMAP.
func complete() []*envelope.Envelope {
	now := time.Date(2026, 11, 23, 16, 18, 10, 0, time.UTC)
	common := envelope.Envelope{
		MessageID: "m", App: "a", Sensor: "trap-1", Collector: strings.Repeat("c", envelope.MaxValueBytes+1), SHA256: "00", ContentHash: "00",
		ReceivedAt: now, MTAReceivedAt: now, MailID: "\xff", Replayed: true,
	}
	lmtp, imap := common, common
	lmtp.LMTP = &envelope.LMTP{
		MailFrom: "bounce@spam.example", RcptTo: []string{"trap@example.org"}, LHLO: "mx", Peer: "172.20.0.3",
		ClientAddr: "2001:db8::1", ClientPort: 52144, ClientName: "host", ClientHELO: "helo", ClientProto: "ESMTP", QueueID: "4Q",
	}
	imap.IMAP = &envelope.IMAP{Mailbox: "gmail-1", Host: "imap", Folder: "INBOX", Flags: []string{"$Junk"}, InternalDate: now}
	return []*envelope.Envelope{&lmtp, &imap}
}

func typeOf(value any) string {
	switch v := value.(type) {
	case int64:
		return "integer"
	case bool:
		return "boolean"
	case []any:
		return "array of " + typeOf(v[0])
	case string:
		if _, err := time.Parse(time.RFC3339, v); err == nil {
			return "time"
		}
		return "text"
	}
	return "unknown"
}

// message returns one mail by LMTP as the collector publishes it.
func message(t *testing.T, body, mailFrom string, rcptTo ...string) amqp091.Publishing {
	t.Helper()
	digest := sha256Hex(body)
	e := envelope.Envelope{
		MessageID: envelope.LMTPMessageID("", digest, mailFrom, rcptTo), App: "lmtp-collector/test", Collector: "lmtp-collector",
		SHA256: digest, Size: int64(len(body)), LMTP: &envelope.LMTP{MailFrom: mailFrom, RcptTo: rcptTo},
	}
	m, err := e.Publishing([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	return m
}
