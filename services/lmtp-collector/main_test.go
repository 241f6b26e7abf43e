package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"spamtraps.internal/libs/daemon"
	"spamtraps.internal/libs/envelope"
	"spamtraps.internal/libs/rig"
)

func TestMailArrivesExactly(t *testing.T) {
	broker := rig.SharedBroker(t)
	in := boot(t, broker.URL(), "AMQP_MAX_MESSAGE_BYTES=1MiB")
	c, err := hello(in.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()

	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	many := make([]string, 500)
	for i := range many {
		many[i] = fmt.Sprintf("rcpt-%d@y.example", i)
	}
	one := []string{"b@y.example"}
	tests := []struct {
		name string
		from string
		to   []string
		body []byte
		want string
	}{
		{"ordinary", "a@x.example", one, []byte("Subject: s\r\n\r\ntext\r\n"), "250"},
		{"empty, null sender", "", one, nil, "250"},
		{"every byte, NUL and bare CR and LF among them", "a@x", one, append(every, "\r\n"...), "250"},
		{"dots", "a@x", one, []byte(".\r\n..x\r\na\n.\nb\r\n"), "250"},
		{"a line of 100 kB", "a@x", one, append(bytes.Repeat([]byte("x"), 100_000), "\r\n"...), "250"},
		{"as large as it may be", "a@x", one, append(bytes.Repeat([]byte("x"), 1<<20-2), "\r\n"...), "250"},
		{"one byte more", "a@x", one, append(bytes.Repeat([]byte("x"), 1<<20-1), "\r\n"...), "552"},
		{"500 recipients", "a@x", many, []byte("x\r\n"), "250"},
		{"addresses in UTF-8", "ü@exämple", []string{"pösteingang@exämple"}, []byte("x\r\n"), "250"},
		{"addresses in no encoding at all", "\xff@x", []string{"\xfe\x01@y", "c@z"}, []byte("x\r\n"), "250"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			replies, err := c.Deliver(test.from, test.to, test.body)
			if err != nil {
				t.Fatal(err)
			}
			if len(replies) != len(test.to) {
				t.Errorf("%d replies for %d recipients", len(replies), len(test.to))
			}
			for _, reply := range replies {
				if !strings.HasPrefix(reply, test.want+" ") {
					t.Errorf("got %q, want %s", reply, test.want)
				}
			}
			mails := drain(t, broker)
			if test.want != "250" {
				if len(mails) != 0 {
					t.Errorf("%d mails arrived", len(mails))
				}
				return
			}
			if len(mails) != 1 {
				t.Fatalf("%d mails arrived", len(mails))
			}
			got := mails[0]
			if !bytes.Equal(got.body, test.body) || got.Size != int64(len(test.body)) {
				t.Errorf("the body differs: %.200q", got.body)
			}
			if got.LMTP.MailFrom != test.from || !slices.Equal(got.LMTP.RcptTo, test.to) || got.LMTP.LHLO != "mta.example" {
				t.Errorf("the envelope is %+v", got.LMTP)
			}
			if want := envelope.LMTPMessageID("", got.SHA256, test.from, test.to); got.MessageID != want {
				t.Errorf("message id %s, want %s", got.MessageID, want)
			}
			if got.App != "lmtp-collector/"+daemon.Version() || got.Collector != "lmtp-collector" || got.Sensor != "sensor-1" {
				t.Errorf("marked as %s, %s, %s", got.App, got.Collector, got.Sensor)
			}
			if n := len(in.log.events(t, "confirmed")); !strings.Contains(in.log.String(), got.MessageID) || n == 0 {
				t.Errorf("the log does not tell of it")
			}
		})
	}
}

func TestReadinessFollowsTheBroker(t *testing.T) {
	broker := rig.SharedBroker(t)
	proxy := rig.NewProxy(t, fmt.Sprintf("%s:%d", broker.Host, broker.Port))
	in := boot(t, broker.URLAt(proxy.Addr()))
	if status, text := in.log.readiness(t); status != http.StatusOK || !strings.Contains(text, "amqp: publishing") || !strings.Contains(text, "lmtp: listening on "+in.socket) {
		t.Errorf("with the broker: %d %s", status, text)
	}
	proxy.Refuse()
	proxy.Reset()
	rig.Eventually(t, 5*time.Second, "MAIL is deferred", func() bool { return deferred(t, in.socket) })
	if status, text := in.log.readiness(t); status != http.StatusServiceUnavailable || !strings.Contains(text, "NOK amqp: ") {
		t.Errorf("without the broker: %d %s", status, text)
	}
	proxy.Accept()
	rig.Eventually(t, 5*time.Second, "mail is taken again", func() bool { return takesMail(in.socket) })
	if status, text := in.log.readiness(t); status != http.StatusOK {
		t.Errorf("with the broker again: %d %s", status, text)
	}
}

// Each start that is refused says why in one sentence, and exits with 2.
func TestRefusedStarts(t *testing.T) {
	feed := func(text string) string {
		path := filepath.Join(t.TempDir(), "feed_config.yml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	contradiction := "LMTP_MAX_MESSAGE_BYTES must be at most AMQP_MAX_MESSAGE_BYTES (1000), or mail is taken that the broker never takes, not 1001"
	tests := []struct {
		name string
		args []string
		env  []string
		want string
	}{
		{"a maildir that keeps something else", nil, []string{"MAILDIR=/tmp/maildir", "MAILDIR_KEEP=some"}, "MAILDIR_KEEP must be all or undelivered"},
		{"less room than none", nil, []string{"MAILDIR_MIN_FREE=-1"}, "MAILDIR_MIN_FREE must"},
		{"a misspelt setting of the maildir", nil, []string{"MAILDIR_KEPT=all"}, "MAILDIR_KEPT is no setting"},
		{"larger than the broker takes", nil, []string{"LMTP_MAX_MESSAGE_BYTES=1001", "AMQP_MAX_MESSAGE_BYTES=1000"}, contradiction},
		{"-p with a socket", []string{"-p", "24"}, []string{"LMTP_LISTEN=unix:/run/lmtp"}, "--port contradicts LMTP_LISTEN, which is a unix socket: choose one"},
		{"-p beyond the end", []string{"--port", "70000"}, nil, "--port must be between 1 and 65535, not 70000"},
		{"a misspelt variable", nil, []string{"LMTP_DOMAIN=x"}, "LMTP_DOMAIN is no setting"},
		{"an unknown key", []string{"-f", feed("amqp: {hots: x}\n")}, nil, "amqp.hots"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var stderr console
			signals := make(chan os.Signal, 1)
			signals <- syscall.SIGTERM // a start that is not refused ends at once
			code := daemon.Main(service, daemon.Process{Args: test.args, Env: test.env, Stdout: io.Discard, Stderr: &stderr, Signals: signals})
			if code != daemon.ExitRefused {
				t.Errorf("exit code %d", code)
			}
			if got := stderr.String(); !strings.Contains(got, test.want) || strings.Count(got, "\n") > 2 {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// The command line and the file of the package that this one replaces.
func TestOldCommandLine(t *testing.T) {
	feed := filepath.Join(t.TempDir(), "feed_config.yml")
	text := "---  # Broker config\ntype: amqp\namqp:\n  ident: reader\n  secret: geheim\n  host: broker.example\n  port: 5671\n  vhost: \"/\"\n" +
		"  exchange: spam\n  routing_key: \"spam.mails\"\n  tls: True\n  check_cert: False\nhpfeeds:\n  ident: writer\n  secret: geheim\n" +
		"  host: 0.0.0.0\n  port: 10000\n  tls: False\n  channels:\n    - spam.mails\n"
	if err := os.WriteFile(feed, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr console
	code := daemon.Main(service, daemon.Process{Args: []string{"-p", "8587", "-f", feed, "-m", "/var/spool/trap", "-v", "config"}, Stdout: &stdout, Stderr: &stderr})
	if code != daemon.ExitOK {
		t.Fatalf("exit code %d: %s", code, &stderr)
	}
	for _, want := range []string{"127.0.0.1:8587", "broker.example", `ident: "reader"`, "16MiB", "9602", "/var/spool/trap", `keep: "all"`} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("the configuration has no %s:\n%s", want, &stdout)
		}
	}
	if strings.Contains(stdout.String(), "geheim") {
		t.Error("the password is shown")
	}
}
