package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rabbitmq/amqp091-go"

	"spamtraps.internal/libs/amqp/amqptest"
	"spamtraps.internal/libs/envelope"
	"spamtraps.internal/libs/rig"
)

// hardened is how Compose runs a service.
var hardened = []string{"--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"}

// chain is RabbitMQ, lmtp-collector and Postfix as Compose connects them, and a host with stock SMTP clients beside them.
type chain struct {
	broker             *rig.Broker
	collector, postfix *rig.Container
	client             *rig.Container
	inbox              *amqptest.Inbox
}

func newChain(t *testing.T) *chain {
	t.Helper()
	network := rig.NewNetwork(t)
	broker := rig.OwnBroker(t, rig.WithNetwork(network))
	c := &chain{broker: broker}
	c.collector = rig.Run(t, rig.Image(t, "lmtp-collector"), rig.Options{
		Network: network, Alias: "lmtp-collector", Args: hardened,
		Env: []string{
			"AMQP_HOST=rabbitmq", "AMQP_TLS=false", "AMQP_IDENT=collector", "AMQP_SECRET=" + broker.UserPassword("collector"),
			"SENSOR=trap-1", "LMTP_XFORWARD_FROM=10.0.0.0/8,172.16.0.0/12,192.168.0.0/16",
		},
	})
	c.postfix = rig.Run(t, rig.Image(t, "postfix"), rig.Options{
		Network: network, Alias: "postfix",
		Env: []string{
			"POSTFIX_LMTP=inet:lmtp-collector:10024", "POSTFIX_HOSTNAME=mx.trap.example",
			// Seconds, so that a test need not wait minutes for the next try; an installation has a minute and more.
			"POSTFIX_queue_run_delay=2s", "POSTFIX_minimal_backoff_time=2s", "POSTFIX_maximal_backoff_time=4s",
		},
	})
	c.client = rig.Run(t, rig.Image(t, "postfix"), rig.Options{
		Network: network, Alias: "client", Args: []string{"--entrypoint", "sleep"}, Command: []string{"infinity"},
	})
	healthy(t, c.collector)
	healthy(t, c.postfix)
	c.inbox = amqptest.NewInbox(t, broker.URL(), "spam", "spam.mails")
	return c
}

func healthy(t *testing.T, c *rig.Container) {
	t.Helper()
	rig.Eventually(t, time.Minute, c.Name+" is healthy", func() bool {
		return rig.Docker(t, "inspect", "-f", "{{.State.Health.Status}}", c.Name) == "healthy"
	})
}

// send hands a file with a whole mail to a stock SMTP client in another container, which sends it to Postfix.
func (c *chain) send(t *testing.T, mail, from string, to string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "mail")
	if err := os.WriteFile(file, []byte(mail), 0o644); err != nil {
		t.Fatal(err)
	}
	rig.Docker(t, "cp", file, c.client.Name+":/tmp/mail")
	c.client.Exec("smtp-source", "-M", "client.example", "-F", "/tmp/mail", "-f", from, "-t", to, "inet:postfix:25")
}

// arrived waits until n mails have arrived, and returns them.
func (c *chain) arrived(t *testing.T, n int) (mails []amqp091.Delivery) {
	t.Helper()
	rig.Eventually(t, time.Minute, fmt.Sprintf("%d mails have arrived", n), func() bool {
		mails = c.inbox.Messages(t)
		return len(mails) >= n
	})
	return mails
}

func TestChainFromSMTPClientToQueue(t *testing.T) {
	c := newChain(t)
	// smtp-source takes lines that end in LF, sends CRLF, and puts an empty line at the end.
	body := "From: a@spam.example\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\nX-Long: " + strings.Repeat("h", 1500) + "\n\n" +
		"8-bit: \xe4\xf6\xfc \xff\n.\n..two dots\nlong: " + strings.Repeat("x", 20_000) + "\nescape: \x1b[31m\n\n\nend\n"
	before := time.Now().Add(-time.Second)
	c.send(t, body, "a@spam.example", "trap@trap.example")

	d := c.arrived(t, 1)[0]
	e, err := envelope.Parse(&d)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.ReplaceAll(body+"\n", "\n", "\r\n")
	got := d.Body
	if !bytes.HasSuffix(got, []byte(want)) {
		t.Fatalf("the body is not what was sent behind what Postfix put before it:\n%q", got)
	}
	received := string(got[:len(got)-len(want)])
	if !strings.HasPrefix(received, "Received: from client.example ") || !strings.Contains(received, "by mx.trap.example (Postfix)") ||
		strings.Count(received, "\r\n") != strings.Count(received, "\n") {
		t.Errorf("Postfix's own header: %q", received)
	}
	sum := sha256.Sum256(got)
	for _, row := range []struct{ header, got, want string }{
		{"sha256", e.SHA256, hex.EncodeToString(sum[:])},
		{"sensor", e.Sensor, "trap-1"},
		{"collector", e.Collector, "lmtp-collector"},
		{"mail_from", e.LMTP.MailFrom, "a@spam.example"},
		{"lhlo", e.LMTP.LHLO, "mx.trap.example"},
		{"rcpt_to", strings.Join(e.LMTP.RcptTo, " "), "trap@trap.example"},
		{"peer", e.LMTP.Peer, ip(t, c.postfix)},
		{"client_addr", e.LMTP.ClientAddr, ip(t, c.client)},
		{"client_helo", e.LMTP.ClientHELO, "client.example"},
		{"client_proto", e.LMTP.ClientProto, "SMTP"}, // smtp-source says HELO,
		{"mail_id", e.MailID, envelope.MailID(e.LMTP.QueueID, e.SHA256)},
		{"message_id", d.MessageId, envelope.LMTPMessageID(e.LMTP.QueueID, e.SHA256, e.LMTP.MailFrom, e.LMTP.RcptTo)},
		{"content_type", d.ContentType, "message/rfc822"},
		{"type", d.Type, "mail"},
		{"app_id", d.AppId, "lmtp-collector/" + version()},
		{"routing key", d.RoutingKey, "spam.mails"},
	} {
		if row.got != row.want {
			t.Errorf("%s is %q, want %q", row.header, row.got, row.want)
		}
	}
	if e.Size != int64(len(got)) {
		t.Errorf("size is %d, the body has %d", e.Size, len(got))
	}
	if e.ReceivedAt.Before(before) || e.ReceivedAt.After(time.Now().Add(time.Second)) {
		t.Errorf("received_at is %v", e.ReceivedAt)
	}
	if id := e.LMTP.QueueID; id == "" || !strings.Contains(received, "id "+id) || e.LMTP.ClientPort == 0 {
		t.Errorf("queue_id is %q, client_port is %d", id, e.LMTP.ClientPort)
	}
	if at := e.MTAReceivedAt; at.Before(before.Truncate(time.Second)) || at.After(e.ReceivedAt) {
		t.Errorf("mta_received_at is %v, received_at %v", at, e.ReceivedAt)
	}
	if e.MailID == "" || d.MessageId == "" || d.DeliveryMode != 2 || d.Timestamp.IsZero() {
		t.Errorf("mail_id %q, message_id %q, delivery_mode %d, timestamp %v", e.MailID, d.MessageId, d.DeliveryMode, d.Timestamp)
	}

	t.Run("waits in Postfix while the collector is dead", func(t *testing.T) {
		c.collector.Kill()
		var want []string
		for _, to := range []string{"one@trap.example", "two@trap.example", "three@elsewhere.example"} {
			// The null sender is half of a trap's catch, and what a careless MTA gives up first.
			c.send(t, "Subject: waits\n\nfor "+to+"\n", "", to)
			want = append(want, to)
		}
		c.collector.Start()
		var got []string
		for _, d := range c.arrived(t, 1+len(want))[1:] {
			e, err := envelope.Parse(&d)
			if err != nil {
				t.Fatal(err)
			}
			if e.LMTP.MailFrom != "" {
				t.Errorf("sender %q of null-sender mail", e.LMTP.MailFrom)
			}
			got = append(got, e.LMTP.RcptTo...)
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("arrived for %v, want %v", got, want)
		}
	})
}

func ip(t *testing.T, c *rig.Container) string {
	t.Helper()
	return rig.Docker(t, "inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", c.Name)
}

// version is what the images under test were built as.
func version() string {
	if v := os.Getenv("SPAMTRAPS_VERSION"); v != "" {
		return v
	}
	return "dev"
}
