package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
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
			"POSTFIX_lmtp_destination_recipient_limit=50", // as in a Postfix that nobody has told otherwise
			// Seconds, so that a test need not wait minutes for the next try; an installation has a minute and more.
			"POSTFIX_queue_run_delay=2s", "POSTFIX_minimal_backoff_time=2s", "POSTFIX_maximal_backoff_time=4s", "POSTFIX_transport_retry_time=2s",
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

	t.Run("carries hostile bodies", c.carriesHostileBodies)
	t.Run("groups many recipients", c.groupsManyRecipients)
	t.Run("waits in Postfix while the collector is dead", func(t *testing.T) {
		c.collector.Kill()
		already := len(c.inbox.Messages(t))
		var want []string
		for _, to := range []string{"one@trap.example", "two@trap.example", "three@elsewhere.example"} {
			// The null sender is half of a trap's catch, and what a careless MTA gives up first.
			c.send(t, "Subject: waits\n\nfor "+to+"\n", "", to)
			want = append(want, to)
		}
		c.collector.Start()
		var got []string
		for _, d := range c.arrived(t, already+len(want))[already:] {
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

// What our Postfix changes, docs/flow.md tells; nothing else may be changed on the way, whatever bytes a mail has.
func (c *chain) carriesHostileBodies(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	const count = 1000
	before := len(c.inbox.Messages(t))
	want := make(map[string]string, count)
	var client *smtpClient
	for number := range count {
		if number%100 == 0 {
			client = dialSMTP(t, c.postfix, "hostile.example")
		}
		from := fmt.Sprintf("hostile-%d@spam.example", number)
		sent := fmt.Sprintf("X-Number: %d\r\n\r\n%s", number, rig.HostileBody(random))
		client.envelope(from, "trap@trap.example")
		if number%2 == 0 {
			want[from] = withoutBareLF(sent, true)
			client.data(sent)
		} else {
			want[from] = withoutBareLF(sent, false)
			client.chunk(sent)
		}
	}
	for _, d := range c.arrived(t, before+count)[before:] {
		e, err := envelope.Parse(&d)
		if err != nil {
			t.Fatal(err)
		}
		got := string(receivedLine.ReplaceAll(d.Body, nil))
		if got != want[e.LMTP.MailFrom] {
			t.Errorf("the mail of %s came as\n%.2000q, want\n%.2000q", e.LMTP.MailFrom, got, want[e.LMTP.MailFrom])
		}
		delete(want, e.LMTP.MailFrom)
	}
	if len(want) > 0 {
		t.Errorf("%d mails did not come", len(want))
	}
}

// withoutBareLF is what becomes of a mail in our Postfix: each bare LF becomes CR LF. By DATA a dot that begins a line is taken for a stuffed
// one, though after a bare LF nobody stuffs, and a line that is a dot alone goes.
func withoutBareLF(mail string, byData bool) string {
	var out strings.Builder
	stuffed := true
	for line := range strings.Lines(mail) {
		text, whole := strings.CutSuffix(line, "\r\n")
		if !whole {
			text = strings.TrimSuffix(line, "\n")
		}
		if byData && !stuffed && strings.HasPrefix(text, ".") {
			text = text[1:]
			if text == "" {
				stuffed = whole
				continue
			}
		}
		out.WriteString(text + "\r\n")
		stuffed = whole
	}
	return out.String()
}

// Postfix cuts a mail of many recipients into several; each has an id of its own, and what they share tells that they are one.
func (c *chain) groupsManyRecipients(t *testing.T) {
	before := len(c.inbox.Messages(t))
	var want []string
	for i := range 120 {
		want = append(want, fmt.Sprintf("many-%03d@trap.example", i))
	}
	client := dialSMTP(t, c.postfix, "many.example")
	client.envelope("many@spam.example", want...)
	client.data("Subject: to many\r\n\r\ntext\r\n")
	var got []string
	ids, mailIDs, bodies := make(map[string]bool), make(map[string]bool), make(map[string]bool)
	for _, d := range c.arrived(t, before+3)[before:] {
		e, err := envelope.Parse(&d)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, e.LMTP.RcptTo...)
		ids[d.MessageId], mailIDs[e.MailID], bodies[string(d.Body)] = true, true, true
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("the recipients are %q", got)
	}
	if len(ids) != 3 || len(mailIDs) != 1 || len(bodies) != 1 {
		t.Errorf("%d message ids, %d mail ids and %d bodies, want 3, 1 and 1", len(ids), len(mailIDs), len(bodies))
	}
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
