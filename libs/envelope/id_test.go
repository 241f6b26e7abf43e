package envelope_test

import (
	"slices"
	"strings"
	"testing"

	"spamtraps.internal/libs/envelope"
)

// TestIDsNeverChange pins the derivations: with another one, every duplicate across an update would pass for a new mail.
func TestIDsNeverChange(t *testing.T) {
	for want, got := range map[string]string{
		// printf '5:4QhX24:beef4:a@b.6:x@y.zz6:z@y.zz' | sha256sum
		"lmtp-9c7df0d787b8b804a796b71f23e26b547a11382730250e18e9b4991dce22dfa6": envelope.LMTPMessageID("4QhX2", "beef", "a@b.", []string{"z@y.zz", "x@y.zz"}),
		// printf '7:gmail-15:INBOX10:42949672951:7' | sha256sum
		"imap-e56e20edc1592b800b772318eafb05143dbccfa93a9d275f1886e65d298b6a8e": envelope.IMAPMessageID("gmail-1", "INBOX", 4294967295, 7),
		// printf '4:beef' | sha256sum
		"replay-781eb6e2924e0668685ef760af1fb8502254565accef06fa03b1722c1cd77135": envelope.ReplayMessageID("beef"),
		// printf '5:4QhX24:beef' | sha256sum
		"mail-42eb567a542c0fd4fcef15ed32941d5da8db3e7bf48c78dca53f5c1a6c7fc883": envelope.MailID("4QhX2", "beef"),
	} {
		if got != want {
			t.Errorf("id is %s, want %s", got, want)
		}
	}
}

func TestLMTPMessageID(t *testing.T) {
	id := envelope.LMTPMessageID
	recipients := []string{"b@x", "a@x"}
	one := id("Q", "beef", "s@x", recipients)
	if !slices.Equal(recipients, []string{"b@x", "a@x"}) {
		t.Error("the caller's recipients were sorted")
	}
	if one != id("Q", "beef", "s@x", []string{"a@x", "b@x"}) {
		t.Error("the order of recipients makes another id")
	}
	for what, other := range map[string]string{
		"queue id":                    id("R", "beef", "s@x", recipients),
		"content":                     id("Q", "dead", "s@x", recipients),
		"sender":                      id("Q", "beef", "t@x", recipients),
		"recipients":                  id("Q", "beef", "s@x", []string{"a@x"}),
		"a recipient twice":           id("Q", "beef", "s@x", []string{"a@x", "b@x", "b@x"}),
		"bytes that look like fields": id("Q", "beef", "s@x3:a@x", []string{"b@x"}),
		"recipients that join":        id("Q", "beef", "s@x", []string{"a@xb@x"}),
	} {
		if one == other {
			t.Errorf("the id is the same with another %s", what)
		}
	}
	hostile := id(strings.Repeat("\xff", 1<<16), "\x00", "\n", slices.Repeat([]string{"\xff"}, 5000))
	if len(hostile) > 255 || strings.Trim(hostile, "lmtp-0123456789abcdef") != "" {
		t.Errorf("hostile fields make the id %q", hostile)
	}
}
