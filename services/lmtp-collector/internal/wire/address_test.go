package wire_test

import (
	"strings"
	"testing"
)

func TestAddressIsExact(t *testing.T) {
	tests := []struct{ sent, address, shown string }{
		{"MAIL FROM:<>", "", "MAIL FROM:<>"},
		{"MAIL FROM:<a@b>", "a@b", "MAIL FROM:<a@b>"},
		{"mail from: <a@b> SIZE=5 BODY=8BITMIME", "a@b", "MAIL FROM:<a@b> SIZE=5 BODY=8BITMIME"},
		{"MAIL FROM:<ü@exämple> SMTPUTF8", "ü@exämple", "MAIL FROM:<ü@exämple> SMTPUTF8"},
		{"RCPT TO:<A.b+c@D.example>", "A.b+c@D.example", "RCPT TO:<A.b+c@D.example>"},
		{"RCPT TO:<x@[IPv6:::1]>", "x@[IPv6:::1]", "RCPT TO:<x@[IPv6:::1]>"},
		{"RCPT TO:a@b", "a@b", "RCPT TO:<a@b>"},
		{"RCPT TO:<postmaster>", "postmaster", odd},
		{"RCPT TO:<a!b>", "a!b", odd},
		{"RCPT TO:<@b>", "@b", odd},
		{"RCPT TO:<a@>", "a@", odd},
		{"RCPT TO:<a@b@c>", "a@b@c", odd},
		{`RCPT TO:<"a b@c"@d>`, `"a b@c"@d`, odd},
		{`RCPT TO:<"a>b"@d>`, `"a>b"@d`, odd},
		{`RCPT TO:<"a\">b"@d>`, `"a\">b"@d`, odd},
		{`RCPT TO:<a"b@c>`, `a"b@c`, odd},
		{"RCPT TO:<a b@c>", "a b@c", odd},
		{"RCPT TO:< a@b >", " a@b ", odd},
		{"RCPT TO:<a<b@c>", "a<b@c", odd},
		{"RCPT TO:<@x,@y:a@b>", "@x,@y:a@b", odd},
		{"RCPT TO:<\xff@b>", "\xff@b", odd},
		{"RCPT TO:<a\x00\r\x1b@b>", "a\x00\r\x1b@b", odd},
		{"RCPT TO:<postmaster> NOTIFY=NEVER", "postmaster", odd + " NOTIFY=NEVER"},
		{"RCPT TO:<" + strings.Repeat("x", 4000) + ">", strings.Repeat("x", 4000), odd},
	}
	conn, peer := pair(t)
	for _, test := range tests {
		send(t, peer, test.sent+"\r\n")
		if got := read(t, conn); got != test.shown+"\r\n" {
			t.Errorf("%.50q: go-smtp got %q, want %q", test.sent, got, test.shown)
		}
		if got := conn.Address(); got != test.address {
			t.Errorf("%.50q: the address is %q, want %q", test.sent, got, test.address)
		}
	}
}

const odd = "RCPT TO:<address@invalid>"

// What has no address must reach go-smtp in a form that it refuses, or a session would take the address of the command before.
func TestCommandWithoutAddress(t *testing.T) {
	tests := map[string]string{
		"MAIL":                  "MAIL FROM:",
		"MAIL TO:<a@b>":         "MAIL FROM:",
		"MAIL FROM:":            "MAIL FROM:",
		"MAIL FROM:<a@b":        "MAIL FROM:",
		"MAIL FROM:<a@b>SIZE=1": "MAIL FROM:",
		"RCPT TO:<>":            "RCPT TO:",
		"RCPT TO":               "RCPT TO:",
		"RCPT a@b":              "RCPT TO:",
	}
	conn, peer := pair(t)
	for sent, want := range tests {
		send(t, peer, sent+"\r\n")
		if got := read(t, conn); got != want+"\r\n" {
			t.Errorf("%q: go-smtp got %q, want %q", sent, got, want)
		}
	}
}

// go-smtp reads numbers of 32 bits; a larger mail must be refused for its size and not for its syntax.
func TestSizeThatIsLargerThanAnyMail(t *testing.T) {
	conn, peer := pair(t)
	for sent, want := range map[string]string{
		"SIZE=1000":                       "SIZE=1000",
		"BODY=8BITMIME size=4294967296":   "BODY=8BITMIME SIZE=4294967295",
		"SIZE=99999999999999999999999 A":  "SIZE=4294967295 A",
		"SIZE=12x":                        "SIZE=12x",
		"SIZE=":                           "SIZE=",
		"SIZE=-99999999999999999999":      "SIZE=-99999999999999999999",
		"AUTH=<> SIZE=4294967295":         "AUTH=<> SIZE=4294967295",
		"SIZE=00000000000000000000000009": "SIZE=00000000000000000000000009",
	} {
		send(t, peer, "MAIL FROM:<a@b> "+sent+"\r\n")
		if got := read(t, conn); got != "MAIL FROM:<a@b> "+want+"\r\n" {
			t.Errorf("%q: go-smtp got %q", sent, got)
		}
	}
}
