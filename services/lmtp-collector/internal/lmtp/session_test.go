package lmtp_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/rabbitmq/amqp091-go"

	"spamtraps.internal/libs/amqp"
	"spamtraps.internal/libs/envelope"
	"spamtraps.internal/lmtp-collector/internal/lmtp"
	"spamtraps.internal/lmtp-collector/internal/lmtptest"
)

// step is what a client sends, and the codes of the replies that must follow.
type step struct {
	send string
	want []string
}

func TestSessions(t *testing.T) {
	const mail = "MAIL FROM:<a@x.example>\r\n"
	codes := func(codes ...string) []string { return codes }
	tests := []struct {
		name  string
		steps []step
		mails []string // the recipients of each that the publisher took
	}{
		{"one mail", []step{
			{mail, codes("250")},
			{"RCPT TO:<b@y.example>\r\n", codes("250")},
			{"DATA\r\n", codes("354")},
			{"Subject: s\r\n\r\ntext\r\n.\r\n", codes("250 2.0.0 <b@y.example>")},
			{"QUIT\r\n", codes("221")},
		}, []string{"b@y.example"}},
		{"a reply for each recipient, in order", []step{
			{mail + "RCPT TO:<b@y>\r\nRCPT TO:<c@z>\r\nRCPT TO:<b@y>\r\nDATA\r\n", codes("250", "250", "250", "250", "354")},
			{".\r\n", codes("250 2.0.0 <b@y>", "250 2.0.0 <c@z>", "250 2.0.0 <b@y>")},
		}, []string{"b@y c@z b@y"}},
		{"all pipelined, with a second mail behind the first", []step{
			{
				mail + "RCPT TO:<b@y>\r\nDATA\r\nx\r\n.\r\n" + mail + "RCPT TO:<c@z>\r\nDATA\r\ny\r\n.\r\nQUIT\r\n",
				codes("250", "250", "354", "250 2.0.0 <b@y>", "250", "250", "354", "250 2.0.0 <c@z>", "221"),
			},
		}, []string{"b@y", "c@z"}},
		{"what SMTP extensions say at MAIL", []step{
			{"MAIL FROM:<> BODY=8BITMIME SIZE=10\r\nRSET\r\n", codes("250", "250")},
			{"MAIL FROM:<ü@exämple> SMTPUTF8 SIZE=1048576\r\nRCPT TO:<pösteingang@exämple>\r\n", codes("250", "250")},
		}, nil},
		{"odd addresses, more than go-smtp has patience for", []step{
			{"MAIL FROM:<a b@c>\r\nRSET\r\n" + mail, codes("250", "250", "250")},
			{"RCPT TO:<\"a b@c\"@d>\r\nRCPT TO:<x@[IPv6:::1]>\r\nRCPT TO:<postmaster>\r\n", codes("250", "250", "250")},
			{"RCPT TO:<a!b>\r\nRCPT TO:<@x:b@c>\r\nRCPT TO:<a@b@c>\r\nRCPT TO:<>x>\r\n", codes("250", "250", "250", "501")},
			{"DATA\r\n.\r\n", codes("354", "250", "250", "250", "250", "250", "250")},
		}, []string{`"a b@c"@d x@[IPv6:::1] postmaster a!b @x:b@c a@b@c`}},
		{"no addresses at all", []step{
			{"MAIL FROM:\r\nMAIL FROM:<a\r\nMAIL TO:<a@b>\r\nMAIL <a@b>\r\nMAIL FROM:<a@b>x\r\n", codes("501", "501", "501", "501", "501")},
			{mail + "RCPT TO:<>\r\nRCPT TO:\r\nRCPT FROM:<a@b>\r\nRCPT TO:<a\r\nRCPT TO:<a@b>x\r\n", codes("250", "501", "501", "501", "501", "501")},
			{"RCPT TO:<b@y>\r\nDATA\r\n.\r\n", codes("250", "354", "250")},
		}, []string{"b@y"}},
		{"larger than the limit by its own account", []step{
			{"MAIL FROM:<a@x> SIZE=1048577\r\n", codes("552 5.3.4")},
			{"MAIL FROM:<a@x> SIZE=99999999999999\r\n", codes("552 5.3.4")},
			{mail, codes("250")},
		}, nil},
		{"commands out of order", []step{
			{"RCPT TO:<b@y>\r\n", codes("502 5.5.1")},
			{"DATA\r\n", codes("502 5.5.1")},
			{mail + mail, codes("250", "503 5.5.1")},
			{"DATA\r\n", codes("502 5.5.1")},
		}, nil},
		{"an end of a mail that go-smtp does not see", []step{
			{
				mail + "RCPT TO:<b@y>\r\nDATA\r\nx\r\r\n.\r\n" + mail + "RCPT TO:<c@z>\r\nDATA\r\n.\r\n",
				codes("250", "250", "354", "250 2.0.0 <b@y>", "250", "250", "354", "250 2.0.0 <c@z>"),
			},
		}, []string{"b@y", "c@z"}},
		{"RSET forgets", []step{
			{mail + "RCPT TO:<b@y>\r\nRSET\r\nDATA\r\n", codes("250", "250", "250", "502")},
			{mail + "RCPT TO:<c@z>\r\nDATA\r\n.\r\n", codes("250", "250", "354", "250 2.0.0 <c@z>")},
		}, []string{"c@z"}},
		{"LHLO again forgets", []step{
			{mail + "RCPT TO:<b@y>\r\nLHLO other\r\nDATA\r\n", codes("250", "250", "250", "502")},
		}, nil},
		{"what is not offered", []step{
			{"EHLO x\r\n", codes("500")},
			{"STARTTLS\r\n", codes("502")},
			{"AUTH PLAIN AAA=\r\n", codes("523")},
			{"VRFY b@y\r\nNOOP\r\n", codes("252", "250")},
		}, nil},
		{"a line too long is one bad command", []step{
			{mail + "RCPT TO:<" + strings.Repeat("x", 5000) + "@y>\r\nRCPT TO:<b@y>\r\nDATA\r\nx\r\n.\r\n", codes("250", "500 5.5.2", "250", "354", "250")},
		}, []string{"b@y"}},
		{"a chunk is never taken for commands", []step{
			{mail + "RCPT TO:<b@y>\r\nBDAT 60 LAST\r\nMAIL FROM:<evil@x>\r\n", codes("250", "250", "421")},
		}, nil},
		{"not LMTP at all", []step{
			{"GET / HTTP/1.1\r\n\r\n" + strings.Repeat("A: b\r\n", 19), append(slices.Repeat([]string{"500 5.5.2"}, 21), "421 4.7.0")},
		}, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var publisher memory
			c := start(t, &publisher, nil).hello(t)
			for _, step := range test.steps {
				c.say(step.send, step.want...)
			}
			var got []string
			for _, mail := range publisher.taken() {
				got = append(got, strings.Join(parse(t, mail).LMTP.RcptTo, " "))
			}
			if !slices.Equal(got, test.mails) {
				t.Errorf("taken for %q, want %q", got, test.mails)
			}
		})
	}
}

func TestLHLOOffersWhatIsKept(t *testing.T) {
	c := start(t, &memory{}, func(cfg *lmtp.Config) { cfg.MaxMessageBytes, cfg.MaxRecipients = 12345, 7 }).dial(t)
	lines := strings.Split(c.say("LHLO mta.example\r\n", "250"), "\n")
	want := []string{
		"250-Hello mta.example", "250-PIPELINING", "250-8BITMIME", "250-ENHANCEDSTATUSCODES", "250-SMTPUTF8", "250-SIZE 12345",
		"250 LIMITS RCPTMAX=7",
	}
	if !slices.Equal(lines, want) {
		t.Errorf("got %q, want %q", lines, want)
	}
}

func TestEnvelope(t *testing.T) {
	var publisher memory
	r := start(t, &publisher, nil)
	c := r.hello(t)
	before := time.Now().Add(-time.Second)
	c.say("MAIL FROM:<ü@x.example> SMTPUTF8\r\nRCPT TO:<b@y.example>\r\nRCPT TO:<A@Y.example>\r\nDATA\r\nhello\r\n.\r\n",
		"250", "250", "250", "354", "250", "250")
	got := publisher.last(t)
	const digest = "cd2eca3535741f27a8ae40c31b0c41d4057a7a7b912b33b9aed86485d1c84676"
	rcpts := []string{"b@y.example", "A@Y.example"}
	if got.MessageID != envelope.LMTPMessageID("", digest, "ü@x.example", rcpts) || got.MailID != envelope.MailID("", digest) {
		t.Errorf("ids are %s, %s", got.MessageID, got.MailID)
	}
	if got.App != "lmtp-collector/test" || got.Collector != "lmtp-collector" || got.Sensor != "sensor-1" {
		t.Errorf("identity is %s, %s, %s", got.App, got.Collector, got.Sensor)
	}
	if got.SHA256 != digest || got.Size != 7 {
		t.Errorf("sha256 %s, size %d", got.SHA256, got.Size)
	}
	if got.ReceivedAt.Before(before) || got.ReceivedAt.After(time.Now()) {
		t.Errorf("received at %s", got.ReceivedAt)
	}
	if l := got.LMTP; l.MailFrom != "ü@x.example" || !slices.Equal(l.RcptTo, rcpts) || l.LHLO != "mta.example" || l.Peer != "127.0.0.1" {
		t.Errorf("LMTP is %+v", l)
	}
	for _, name := range []string{"spamtraps_lmtp_received_total", "spamtraps_lmtp_taken_total", "spamtraps_lmtp_open_connections"} {
		if n := r.counted(t, name); n != 1 {
			t.Errorf("%s is %v", name, n)
		}
	}
	if n := r.counted(t, "spamtraps_lmtp_received_bytes_total"); n != 7 {
		t.Errorf("received bytes are %v", n)
	}
	if !strings.Contains(r.log.String(), `"message":"confirmed"`) || !strings.Contains(r.log.String(), got.MessageID) {
		t.Errorf("the log has no confirmed with the id: %s", r.log)
	}
}

func TestNullSenderWithoutLHLOName(t *testing.T) {
	var publisher memory
	c := start(t, &publisher, nil).hello(t)
	c.say("MAIL FROM:<>\r\nRCPT TO:<b@y>\r\nDATA\r\n.\r\n", "250", "250", "354", "250")
	if got := publisher.last(t); got.LMTP.MailFrom != "" || got.Size != 0 {
		t.Errorf("sender %q, size %d", got.LMTP.MailFrom, got.Size)
	}
}

// bodies are hard to carry, each in its own way.
func bodies() map[string][]byte {
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	return map[string][]byte{
		"empty":          {},
		"a line":         []byte("x\r\n"),
		"only line ends": []byte("\r\n\r\n\r\n"),
		"8 bit":          []byte("Subject: \xe4\xf6\xfc\r\n\r\n\xff\xfe\x80\r\n"),
		"every byte":     append(every, "\r\n"...),
		"NUL":            []byte("a\x00b\r\n\x00\r\n"),
		"bare CR and LF": []byte("a\rb\nc\n\rd\r\n"),
		"dots":           []byte(".\r\n..\r\n...x\r\n.x\r\n"),
		"false ends":     []byte("a\n.\nb\n.\r\nc\r.\rd\r\n\x00.\r\n. \r\n"),
		"100 kB line":    append(bytes.Repeat([]byte("x"), 100_000), "\r\n"...),
		"100 kB of dots": append(bytes.Repeat([]byte("."), 100_000), "\r\n"...),
		"CR before CRLF": []byte("a\r\r\n.\r\r\n\r\r\n"),
		"dot before CR":  []byte(".\rx\r\n.\r.\r\n"),
		"780 kB of text": bytes.Repeat([]byte("seventy-six characters or so of nothing but text, as a mail has them by line\r\n"), 10_000),
		"like commands":  []byte("QUIT\r\nBDAT 5 LAST\r\nMAIL FROM:<evil@x>\r\nDATA\r\n"),
	}
}

func TestBodyIsExact(t *testing.T) {
	var publisher memory
	c := start(t, &publisher, nil).hello(t)
	for name, body := range bodies() {
		if _, err := c.Deliver("a@x", []string{"b@y"}, body); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		mails := publisher.taken()
		if got := mails[len(mails)-1].Body; !bytes.Equal(got, body) {
			t.Errorf("%s: got %.200q, want %.200q", name, got, body)
		}
	}
}

func TestMessageSize(t *testing.T) {
	const limit = 100_000
	var publisher memory
	r := start(t, &publisher, func(cfg *lmtp.Config) { cfg.MaxMessageBytes = limit })
	c := r.hello(t)
	body := func(size int) []byte { return append(bytes.Repeat([]byte("x"), size-2), "\r\n"...) }
	tests := []struct {
		size int
		want string
	}{
		{limit - 1, "250 "}, {limit, "250 "}, {limit + 1, "552 5.3.4 "}, {3 * limit, "552 5.3.4 "}, {limit, "250 "},
	}
	for _, test := range tests {
		replies, err := c.Deliver("a@x", []string{"b@y", "c@z"}, body(test.size))
		if err != nil {
			t.Fatalf("%d bytes: %v", test.size, err)
		}
		for _, reply := range replies {
			if !strings.HasPrefix(reply, test.want) {
				t.Errorf("%d bytes: got %q, want %s", test.size, reply, test.want)
			}
		}
	}
	if got := len(publisher.taken()); got != 3 {
		t.Errorf("%d mails were taken", got)
	}
	if n := r.counted(t, "spamtraps_lmtp_rejected_total", "size"); n != 2 {
		t.Errorf("%v were counted as too large", n)
	}
}

// What is too large is read over, and not held.
func TestTooLargeMailTakesNoMemory(t *testing.T) {
	c := start(t, &memory{}, func(cfg *lmtp.Config) { cfg.MaxMessageBytes = 100_000 }).hello(t)
	c.say("MAIL FROM:<>\r\nRCPT TO:<b@y>\r\nDATA\r\n", "250", "250", "354")
	piece := bytes.Repeat([]byte("x"), 1<<20)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 64 {
		if _, err := c.Write(piece); err != nil {
			t.Fatal(err)
		}
	}
	c.say("\r\n.\r\n", "552 5.3.4")
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 8<<20 {
		t.Errorf("a mail of 64 MiB took %d MiB", used>>20)
	}
}

func TestEveryFailureToPublishIsTemporary(t *testing.T) {
	tests := []struct {
		name    string
		publish func(context.Context, amqp091.Publishing) error
		want    string
		level   string
	}{
		{"an error that passes", func(context.Context, amqp091.Publishing) error {
			return &amqp.Error{Reason: amqp.ReasonDown, Err: errors.New("cannot reach secret:5672")}
		}, "451 4.3.0 ", "warn"},
		{"an error that stays", func(context.Context, amqp091.Publishing) error {
			return &amqp.Error{Permanent: true, Reason: amqp.ReasonTooLarge, Err: errors.New("too large")}
		}, "451 4.3.0 ", "error"},
		{"an unknown error", func(context.Context, amqp091.Publishing) error { return errors.New("disk full at /secret/path") }, "451 4.3.0 ", "error"},
		{"an SMTP error for good", func(context.Context, amqp091.Publishing) error { return &smtp.SMTPError{Code: 554} }, "451 4.3.0 ", "error"},
		{"a wrapped one", func(context.Context, amqp091.Publishing) error {
			return fmt.Errorf("x: %w", &smtp.SMTPError{Code: 550})
		}, "451 4.3.0 ", "error"},
		{"a deadline", func(context.Context, amqp091.Publishing) error { return context.DeadlineExceeded }, "451 4.3.0 ", "error"},
		{"a panic", func(context.Context, amqp091.Publishing) error { panic("broken") }, "451 4.3.0 ", "error"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := start(t, &memory{publish: test.publish}, nil)
			c := r.hello(t)
			replies, err := c.Deliver("a@x", []string{"b@y", "c@z"}, []byte("x\r\n"))
			if err != nil {
				t.Fatal(err)
			}
			for _, reply := range replies {
				if !strings.HasPrefix(reply, test.want) || strings.Contains(reply, "secret") {
					t.Errorf("got %q, want %s", reply, test.want)
				}
			}
			if test.name == "a panic" {
				c.expect("421")
				c.expectEnd()
			} else {
				c.say("NOOP\r\n", "250")
			}
			if n := r.counted(t, "spamtraps_lmtp_taken_total"); n != 0 {
				t.Errorf("%v mails are counted as confirmed", n)
			}
			if !strings.Contains(r.log.String(), `"level":"`+test.level+`"`) {
				t.Errorf("the log has no %s: %s", test.level, r.log)
			}
		})
	}
}

// No reply leaves before the publisher has answered.
func TestReplyWaitsForThePublisher(t *testing.T) {
	publishing, confirm := make(chan struct{}), make(chan struct{})
	publisher := memory{publish: func(context.Context, amqp091.Publishing) error {
		close(publishing)
		<-confirm
		return nil
	}}
	c := start(t, &publisher, nil).hello(t)
	c.say("MAIL FROM:<>\r\nRCPT TO:<b@y>\r\nDATA\r\n", "250", "250", "354")
	c.say("x\r\n.\r\n")
	<-publishing
	_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := c.Read(make([]byte, 1)); n > 0 || err == nil {
		t.Fatal("a reply came before the confirm")
	}
	close(confirm)
	c.expect("250")
}

func TestMailIsDeferredWhileThePublisherIsAway(t *testing.T) {
	var publisher memory
	publisher.setReady(errors.New("amqp: cannot reach rabbitmq"))
	r := start(t, &publisher, nil)
	c := r.hello(t)
	c.say("MAIL FROM:<a@x>\r\n", "451 4.3.0")
	c.say("MAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nDATA\r\n", "451 4.3.0", "502", "502") // all pipelined: no DATA may begin
	publisher.setReady(nil)
	c.say("MAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nDATA\r\n.\r\n", "250", "250", "354", "250")
	if n := r.counted(t, "spamtraps_lmtp_deferred_total", "not_ready"); n != 2 {
		t.Errorf("%v were counted", n)
	}
}

func TestBrokenTransferIsNotDelivered(t *testing.T) {
	const head = "MAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nDATA\r\n"
	for _, half := range []string{"", "Subject: x\r\n\r\nhalf", "half\r\n", "half\r\n.", "half\r\n.\r", "half\n.\n", strings.Repeat("x", 1<<20+100)} {
		t.Run(fmt.Sprintf("%.20q", half), func(t *testing.T) {
			var publisher memory
			r := start(t, &publisher, nil)
			c := r.hello(t)
			c.say(head, "250", "250", "354")
			c.say(half)
			_ = c.Close()
			await(t, "the transfer is counted as broken", func() bool { return r.counted(t, "spamtraps_lmtp_deferred_total", "broken_transfer") == 1 })
			await(t, "the connection is closed", func() bool { return r.counted(t, "spamtraps_lmtp_open_connections") == 0 })
			if got := publisher.taken(); len(got) != 0 {
				t.Errorf("half a mail was published: %.100q", got[0].Body)
			}
		})
	}
}

// A sender that pauses within a mail for longer than the limit must not get the rest of it executed as commands.
func TestNothingIsSmuggledBehindAPause(t *testing.T) {
	var publisher memory
	r := start(t, &publisher, func(cfg *lmtp.Config) { cfg.IdleTimeout = 50 * time.Millisecond })
	c := r.hello(t)
	c.say("MAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nDATA\r\nhalf a mail\r\n", "250", "250", "354", "421 4.4.2")
	_ = c.Send("MAIL FROM:<evil@x>\r\nRCPT TO:<b@y>\r\nDATA\r\nsmuggled\r\n.\r\n") // the connection may be reset already
	c.expectEnd()
	if got := publisher.taken(); len(got) != 0 {
		t.Errorf("taken: %q", got[0].Body)
	}
}

// A peer that is never silent for long, but sends next to nothing, may hold its connection no longer than one that is silent.
func TestSlowPeerIsGivenUp(t *testing.T) {
	r := start(t, &memory{}, func(cfg *lmtp.Config) { cfg.IdleTimeout, cfg.MinRate = time.Second, 1<<20 })
	c := r.hello(t)
	c.say("MAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nDATA\r\n", "250", "250", "354")
	drip := time.NewTicker(20 * time.Millisecond)
	defer drip.Stop()
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		for {
			select {
			case <-drip.C:
				_ = c.Send("x") // until the connection is closed
			case <-stop:
				return
			}
		}
	}()
	if reply := c.expect("421 4.4.2"); !strings.Contains(reply, "too slow") {
		t.Errorf("got %q", reply)
	}
	await(t, "the transfer is counted as broken", func() bool { return r.counted(t, "spamtraps_lmtp_deferred_total", "broken_transfer") == 1 })
}

func TestIdleSessionIsClosed(t *testing.T) {
	c := start(t, &memory{}, func(cfg *lmtp.Config) { cfg.IdleTimeout = 20 * time.Millisecond }).hello(t)
	c.expect("421 4.4.2")
	c.expectEnd()
}

func TestRecipients(t *testing.T) {
	t.Run("too many", func(t *testing.T) {
		var publisher memory
		c := start(t, &publisher, func(cfg *lmtp.Config) { cfg.MaxRecipients = 2 }).hello(t)
		c.say("MAIL FROM:<>\r\nRCPT TO:<a@y>\r\nRCPT TO:<b@y>\r\nRCPT TO:<c@y>\r\nDATA\r\n.\r\n", "250", "250", "250", "452 4.5.3", "354", "250", "250")
		if got := publisher.last(t).LMTP.RcptTo; !slices.Equal(got, []string{"a@y", "b@y"}) {
			t.Errorf("got %q", got)
		}
	})
	t.Run("too much for the headers", func(t *testing.T) {
		var publisher memory
		r := start(t, &publisher, nil)
		c := r.hello(t)
		c.say("MAIL FROM:<>\r\n", "250")
		var taken []string
		for i := 0; ; i++ {
			rcpt := fmt.Sprintf("%03d%s@y.example", i, strings.Repeat("x", 200))
			reply, err := c.Ask("RCPT TO:<" + rcpt + ">")
			if err != nil {
				t.Fatal(err)
			}
			if strings.HasPrefix(reply, "452 4.5.3 ") {
				break
			}
			if !strings.HasPrefix(reply, "250 ") || i > 500 {
				t.Fatalf("recipient %d: %s", i, reply)
			}
			taken = append(taken, rcpt)
		}
		c.say("DATA\r\n.\r\n", "354")
		for range taken {
			c.expect("250")
		}
		if got := publisher.last(t).LMTP.RcptTo; !slices.Equal(got, taken) {
			t.Errorf("%d recipients were answered 250, %d are in the message", len(taken), len(got))
		}
	})
}

func TestDomains(t *testing.T) {
	var publisher memory
	r := start(t, &publisher, func(cfg *lmtp.Config) { cfg.Domains = []string{"Example.org", "exämple.net"} })
	c := r.hello(t)
	c.say("MAIL FROM:<a@elsewhere>\r\n", "250")
	tests := []struct{ rcpt, want string }{
		{"b@example.org", "250"},
		{"B@EXAMPLE.ORG", "250"},
		{"b@exÄmple.net", "250"},
		{`"b@elsewhere"@example.org`, "250"},
		{"b@sub.example.org", "550 5.1.1"},
		{`"b@example.org"@elsewhere`, "550 5.1.1"},
		{"b@example.org.", "550 5.1.1"},
	}
	for _, test := range tests {
		c.say("RCPT TO:<"+test.rcpt+">\r\n", test.want)
	}
	if n := r.counted(t, "spamtraps_lmtp_rejected_total", "domain"); n != 3 {
		t.Errorf("%v were counted", n)
	}
}

// What a peer sends reaches the log only as values, cut.
func TestLogIsNotFlooded(t *testing.T) {
	r := start(t, &memory{}, nil)
	c := r.hello(t)
	if _, err := c.Deliver(strings.Repeat("x", 3000)+"@x", []string{"b@y"}, nil); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(r.log.String()) {
		if len(line) > 1000 {
			t.Errorf("a line of %d bytes", len(line))
		}
	}
}

// Bodies in any form come out of any split into writes as they went in; the reference is plain unstuffing in lmtptest.
func FuzzBody(f *testing.F) {
	for _, body := range bodies() {
		f.Add(body, uint16(100))
	}
	var publisher memory
	f.Fuzz(func(t *testing.T, body []byte, split uint16) {
		body = append(slices.Clip(body), "\r\n"...)
		c := start(t, &publisher, nil).hello(t)
		c.say("MAIL FROM:<>\r\nRCPT TO:<b@y>\r\nDATA\r\n", "250", "250", "354")
		wire := lmtptest.Stuff(body)
		at := min(int(split), len(wire))
		c.say(wire[:at])
		c.say(wire[at:], "250")
		mails := publisher.taken()
		if got := mails[len(mails)-1].Body; !bytes.Equal(got, body) {
			t.Errorf("got %q, want %q", got, body)
		}
	})
}

// The content hash is that of the mail without its recipients.
func TestContentHash(t *testing.T) {
	var publisher memory
	c := start(t, &publisher, nil).hello(t)
	c.say("MAIL FROM:<>\r\nRCPT TO:<b@y.example>\r\nDATA\r\nTo: B@y.example\r\n.\r\n", "250", "250", "354", "250")
	if got := publisher.last(t).ContentHash; got != envelope.ContentHash([]byte("To: @\r\n")) {
		t.Errorf("content hash is %s", got)
	}
}
