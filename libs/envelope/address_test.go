package envelope_test

import (
	"testing"

	"spamtraps.internal/libs/envelope"
)

func TestCanonicalAddr(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.1":             "192.0.2.1",
		"[192.0.2.1]":           "192.0.2.1",
		"192.0.2.1:41234":       "192.0.2.1",
		"::ffff:192.0.2.1":      "192.0.2.1",
		"[::ffff:192.0.2.1]:25": "192.0.2.1",
		"IPv6:::ffff:192.0.2.1": "192.0.2.1",
		"IPV6:2001:DB8:0:0::1":  "2001:db8::1",
		"[ipv6:2001:db8::1]":    "2001:db8::1",
		"[2001:db8::1]:25":      "2001:db8::1",
		"2001:db8::1":           "2001:db8::1",
		"fe80::1%eth0":          "fe80::1",
		"[fe80::1%eth0]:25":     "fe80::1",
		"":                      "",
		"unix":                  "unix",
		"[]":                    "[]",
		"IPv6:":                 "IPv6:",
		"[UNAVAILABLE]":         "[UNAVAILABLE]",
		"host.example:25":       "host.example:25",
		"192.0.2.256":           "192.0.2.256",
		"IPv6:IPv6:2001:db8::1": "IPv6:IPv6:2001:db8::1",
		"\xff[2001:db8::1]\x00": "\xff[2001:db8::1]\x00",
	} {
		if got := envelope.CanonicalAddr(text); got != want {
			t.Errorf("CanonicalAddr(%q) = %q, want %q", text, got, want)
		} else if again := envelope.CanonicalAddr(got); again != got {
			t.Errorf("CanonicalAddr(%q) = %q: not canonical yet", got, again)
		}
	}
}
