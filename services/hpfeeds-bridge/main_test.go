package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
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

	"github.com/rabbitmq/amqp091-go"

	"spamtraps.internal/libs/amqp/amqptest"
	"spamtraps.internal/libs/daemon"
	"spamtraps.internal/libs/envelope"
	"spamtraps.internal/libs/hpfeeds"
	"spamtraps.internal/libs/hpfeeds/hpfeedstest"
	"spamtraps.internal/libs/rig"
)

// Each mail goes to each channel, exactly as it is, whatever confirms it.
func TestMailArrivesExactly(t *testing.T) {
	t.Parallel()
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	mails := [][]byte{
		[]byte("Subject: s\r\n\r\ntext\r\n"), every, []byte("x"), bytes.Repeat([]byte("\x00\xff"), 20_000),
	}
	for _, test := range []struct{ name, env, ident, mode string }{
		{"fence", "BRIDGE_CONFIRM=fence", "writer", "fence"},
		{"auto with the right to a fence", "BRIDGE_CONFIRM=auto", "writer", "fence"},
		{"auto without the right to a fence", "BRIDGE_CONFIRM=auto", "no-fence", "drained"},
		{"auto without a fence", "BRIDGE_FENCE_CHANNEL=", "writer", "drained"},
	} {
		for _, manners := range []hpfeedstest.Manners{hpfeedstest.Python, hpfeedstest.Tentacool, hpfeedstest.HPFBroker} {
			t.Run(fmt.Sprintf("%s, manners %d", test.name, manners), func(t *testing.T) {
				t.Parallel()
				broker := rig.SharedBroker(t)
				feed := hpfeedstest.Start(t, hpfeedstest.Config{Users: users(), Manners: manners})
				in := boot(t, settings(broker.URL(), feed.Port, "BRIDGE_FENCE_CHANNEL="+fenceChannel, "HPFEEDS_CHANNELS=spam.mails,spam.copies", "HPFEEDS_IDENT="+test.ident, test.env))
				text := in.log.awaitReady(t, 30*time.Second)
				if !strings.Contains(text, "confirmed by "+test.mode) || in.log.metric(t, fmt.Sprintf("spamtraps_bridge_confirm{mode=%q}", test.mode)) != 1 {
					t.Errorf("the mode is not %s: %s", test.mode, text)
				}
				if events := in.log.events(t, "hpfeeds: connected"); len(events) == 0 || events[0]["confirm"] != test.mode {
					t.Errorf("the log does not tell the mode")
				}
				a := listen(t, feed.Port, "spam.mails", "spam.copies")
				rig.Eventually(t, 10*time.Second, "the audience is there", func() bool { return feed.Subscribers("spam.copies") == 1 && feed.Subscribers("spam.mails") == 1 })
				s := newSender(t, broker.URL())
				for i, mail := range mails {
					s.send(t.Context(), fmt.Sprint("id-", i), mail)
				}
				for _, channel := range []string{"spam.mails", "spam.copies"} {
					rig.Eventually(t, 10*time.Second, "all mails are there", func() bool { return len(a.got(channel)) == len(mails) })
					for i, got := range a.got(channel) {
						if !bytes.Equal(got, mails[i]) {
							t.Errorf("%s: mail %d has other bytes", channel, i)
						}
					}
				}
				rig.Eventually(t, 10*time.Second, "the queue is empty", func() bool { return depth(t, broker, "spam.hpfeeds") == 0 })
				rig.Eventually(t, 10*time.Second, "the log tells of each", func() bool { return len(in.log.events(t, "bridged")) == len(mails) })
				if n := in.log.metric(t, "spamtraps_bridge_confirmed_total"); n != float64(len(mails)) {
					t.Errorf("%v confirmed", n)
				}
			})
		}
	}
}

// Without the right to its fence a bridge that insists on one publishes nothing.
func TestFenceThatIsInsistedOn(t *testing.T) {
	t.Parallel()
	broker := rig.SharedBroker(t)
	feed := hpfeedstest.Start(t, hpfeedstest.Config{Users: users()})
	in := boot(t, settings(broker.URL(), feed.Port, "BRIDGE_FENCE_CHANNEL="+fenceChannel, "BRIDGE_CONFIRM=fence", "HPFEEDS_IDENT=no-fence"))
	rig.Eventually(t, 20*time.Second, "it is said why", func() bool {
		status, text := in.log.ask(t, "/readyz")
		return status == http.StatusServiceUnavailable && strings.Contains(text, fmt.Sprintf("fence on channel %q", fenceChannel))
	})
	newSender(t, broker.URL()).many(10, 100)
	if n := depth(t, broker, "spam.hpfeeds"); n != 10 {
		t.Errorf("%d mails of 10 are in the queue", n)
	}
}

func TestNotConfigured(t *testing.T) {
	t.Parallel()
	broker := rig.SharedBroker(t)
	in := boot(t, []string{"AMQP_URL=" + broker.URL(), "ADMIN_ADDR=127.0.0.1:0"})
	if text := in.log.awaitReady(t, 10*time.Second); !strings.Contains(text, "not configured") {
		t.Errorf("/readyz: %s", text)
	}
	if n := len(in.log.events(t, "no hpfeeds broker is configured (HPFEEDS_HOST), so there is nothing to do: nothing is declared or consumed")); n != 1 {
		t.Errorf("it is said %d times", n)
	}
	if n := depth(t, broker, "spam.hpfeeds"); n != -1 {
		t.Errorf("the queue was declared; it has %d messages", n)
	}
}

// What cannot be published goes to the dead-letter queue with the reason, and the others flow.
func TestMailsThatCannotBePublished(t *testing.T) {
	t.Parallel()
	broker := rig.SharedBroker(t)
	feed := hpfeedstest.Start(t, hpfeedstest.Config{Users: users()})
	limit := hpfeeds.MaxPayload("writer", "spam.mails")
	in := boot(t, settings(broker.URL(), feed.Port, "BRIDGE_FENCE_CHANNEL="+fenceChannel))
	in.log.awaitReady(t, 30*time.Second)
	a := listen(t, feed.Port, "spam.mails")
	rig.Eventually(t, 10*time.Second, "the audience is there", func() bool { return feed.Subscribers("spam.mails") == 1 })
	s := newSender(t, broker.URL())
	s.send(t.Context(), "largest", body("largest", int(limit)))
	s.send(t.Context(), "too large", body("too large", int(limit)+1))
	s.send(t.Context(), "far too large", body("far too large", 15<<20))
	s.send(t.Context(), "empty", nil)
	s.send(t.Context(), "ordinary", body("ordinary", 100))
	rig.Eventually(t, 20*time.Second, "three are dead-lettered", func() bool { return depth(t, broker, "spam.dead") == 3 })
	rig.Eventually(t, 20*time.Second, "two have come", func() bool { return a.count() == 2 })
	rig.Eventually(t, 20*time.Second, "the queue is empty", func() bool { return depth(t, broker, "spam.hpfeeds") == 0 })
	reasons := map[string]string{}
	for _, d := range amqptest.Queue(broker.URL(), "spam.dead").Messages(t) {
		reason, _ := d.Headers["bridge_reason"].(string)
		reasons[d.MessageId] = reason
		if d.Headers["bridge_queue"] != "spam.hpfeeds" || d.Headers["bridge_detail"] == "" || d.Headers["bridge_at"] == "" {
			t.Errorf("%s has the headers %v", d.MessageId, d.Headers)
		}
		if d.MessageId == "too large" && !bytes.Equal(d.Body, body("too large", int(limit)+1)) {
			t.Error("a dead letter has other bytes")
		}
	}
	if reasons["too large"] != "oversize" || reasons["far too large"] != "oversize" || reasons["empty"] != "empty" {
		t.Errorf("the reasons are %v", reasons)
	}
	if n := in.log.metric(t, `spamtraps_bridge_dead_lettered_total{reason="oversize"}`); n != 2 {
		t.Errorf("%v counted", n)
	}
	if n := in.log.metric(t, "spamtraps_bridge_connections_total"); n != 1 {
		t.Errorf("%v connections", n)
	}
}

func TestOversizeIsDroppedOnlyWhenAsked(t *testing.T) {
	t.Parallel()
	broker := rig.SharedBroker(t)
	feed := hpfeedstest.Start(t, hpfeedstest.Config{Users: users()})
	in := boot(t, settings(broker.URL(), feed.Port, "BRIDGE_OVERSIZE=drop", "HPFEEDS_MAX_PAYLOAD=1000"))
	in.log.awaitReady(t, 30*time.Second)
	s := newSender(t, broker.URL())
	s.send(t.Context(), "too large", body("too large", 1001))
	rig.Eventually(t, 20*time.Second, "it is gone", func() bool {
		return in.log.metric(t, "spamtraps_bridge_dropped_total") == 1 && depth(t, broker, "spam.hpfeeds") == 0
	})
	if n := depth(t, broker, "spam.dead"); n != 0 || len(in.log.events(t, "dropped")) != 1 {
		t.Errorf("%d dead letters", n)
	}
}

// A mail that the broker closes the connection over, though no setting forbids it, is found among others, and they flow.
func TestMailThatTheBrokerCannotBear(t *testing.T) {
	t.Parallel()
	broker := rig.SharedBroker(t)
	feed := hpfeedstest.Start(t, hpfeedstest.Config{Users: users(), MaxFrame: 5000}) // HPFEEDS_MAX_PAYLOAD is 1 MiB
	in := boot(t, settings(broker.URL(), feed.Port, "BRIDGE_FENCE_CHANNEL="+fenceChannel))
	in.log.awaitReady(t, 30*time.Second)
	a := listen(t, feed.Port, "spam.mails")
	rig.Eventually(t, 10*time.Second, "the audience is there", func() bool { return feed.Subscribers("spam.mails") == 1 })
	s := newSender(t, broker.URL())
	s.many(20, 100)
	s.send(t.Context(), "poison", body("poison", 6000))
	s.many(20, 100)
	rig.Eventually(t, 60*time.Second, "the others have come", func() bool { return a.count() == 40 })
	rig.Eventually(t, 90*time.Second, "it is dead-lettered", func() bool { return depth(t, broker, "spam.dead") == 1 })
	rig.Eventually(t, 20*time.Second, "the queue is empty", func() bool { return depth(t, broker, "spam.hpfeeds") == 0 })
	if d := amqptest.Queue(broker.URL(), "spam.dead").Messages(t)[0]; d.MessageId != "poison" || d.Headers["bridge_reason"] != "refused" {
		t.Errorf("dead is %s, %v", d.MessageId, d.Headers)
	}
}

// BRIDGE_PAYLOAD=json, as docs/hpfeeds.md tells its readers.
func TestPayloadWithEnvelope(t *testing.T) {
	t.Parallel()
	broker := rig.SharedBroker(t)
	feed := hpfeedstest.Start(t, hpfeedstest.Config{Users: users()})
	in := boot(t, settings(broker.URL(), feed.Port, "BRIDGE_PAYLOAD=json", "BRIDGE_FENCE_CHANNEL="+fenceChannel))
	in.log.awaitReady(t, 30*time.Second)
	a := listen(t, feed.Port, "spam.mails")
	rig.Eventually(t, 10*time.Second, "the audience is there", func() bool { return feed.Subscribers("spam.mails") == 1 })
	s := newSender(t, broker.URL())
	mail := []byte("Subject: \xff\r\n\r\n<b>\x00\r\n")
	e := envelope.Envelope{
		MessageID: "lmtp-1", MailID: "mail-1", App: "lmtp-collector/1", Sensor: "sensor-1", Collector: "lmtp-collector", SHA256: strings.Repeat("a", 64), Size: int64(len(mail)),
		ReceivedAt: time.Date(2026, 11, 23, 16, 18, 10, 42e6, time.UTC),
		LMTP:       &envelope.LMTP{MailFrom: "a\xff@x", RcptTo: []string{"b@y", "<c>@z"}, LHLO: "mta", QueueID: "4Q"},
	}
	m, err := e.Publishing(mail)
	if err != nil {
		t.Fatal(err)
	}
	for _, publishing := range []amqp091.Publishing{m, {MessageId: "garbage", Headers: amqp091.Table{"contract": "one", "x": "y"}, Body: []byte("x")}} {
		if err := s.Publish(t.Context(), publishing); err != nil {
			t.Fatal(err)
		}
	}
	rig.Eventually(t, 10*time.Second, "it is there", func() bool { return len(a.got("spam.mails")) == 1 })
	var got struct {
		Version   int
		MessageID string         `json:"message_id"`
		App       string         `json:"app_id"`
		Headers   map[string]any `json:"headers"`
		Mail      string         `json:"mail"`
	}
	text := a.got("spam.mails")[0]
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	raw, _ := base64.StdEncoding.DecodeString(got.Mail)
	from, _ := base64.StdEncoding.DecodeString(fmt.Sprint(got.Headers["mail_from"]))
	if got.Version != 1 || got.MessageID != "lmtp-1" || got.App != "lmtp-collector/1" || !bytes.Equal(raw, mail) || string(from) != "a\xff@x" ||
		got.Headers["contract"] != 1. || got.Headers["received_at"] != "2026-11-23T16:18:10.042Z" || fmt.Sprint(got.Headers["rcpt_to"]) != "[b@y <c>@z]" {
		t.Errorf("got %s", text)
	}
	rig.Eventually(t, 10*time.Second, "the garbage is dead-lettered", func() bool { return depth(t, broker, "spam.dead") == 1 })
	if d := amqptest.Queue(broker.URL(), "spam.dead").Messages(t)[0]; d.Headers["bridge_reason"] != "envelope" || d.Headers["contract"] != "one" {
		t.Errorf("the dead letter has the headers %v", d.Headers)
	}
}

// While the hpfeeds broker is away nothing is consumed, /readyz says since when and why, and mail flows within five seconds of its return.
func TestReadinessFollowsTheBroker(t *testing.T) {
	t.Parallel()
	broker := rig.SharedBroker(t)
	feed := hpfeedstest.Start(t, hpfeedstest.Config{Users: users()})
	proxy := rig.NewProxy(t, fmt.Sprintf("127.0.0.1:%d", feed.Port))
	_, port, _ := strings.Cut(proxy.Addr(), ":")
	env := settings(broker.URL(), 0, "BRIDGE_FENCE_CHANNEL="+fenceChannel)
	in := boot(t, append(slices.DeleteFunc(env, func(s string) bool { return strings.HasPrefix(s, "HPFEEDS_PORT=") }), "HPFEEDS_PORT="+port))
	in.log.awaitReady(t, 30*time.Second)
	a := listen(t, feed.Port, "spam.mails")
	rig.Eventually(t, 10*time.Second, "the audience is there", func() bool { return feed.Subscribers("spam.mails") == 1 })
	proxy.Refuse()
	proxy.Reset()
	rig.Eventually(t, 5*time.Second, "/readyz says why", func() bool {
		status, text := in.log.ask(t, "/readyz")
		return status == http.StatusServiceUnavailable && strings.Contains(text, "connection refused, for ")
	})
	s := newSender(t, broker.URL())
	s.many(50, 1000)
	rig.Eventually(t, 5*time.Second, "the queue holds all, and nothing is consumed", func() bool {
		_, text := in.log.ask(t, "/readyz")
		return strings.Contains(text, `not consuming from queue "spam.hpfeeds"`) && depth(t, broker, "spam.hpfeeds") == 50
	})
	proxy.Accept()
	back := time.Now()
	rig.Eventually(t, 5*time.Second, "mail flows again", func() bool { return a.count() > 0 })
	t.Logf("mail flows %s after the broker's return", time.Since(back).Round(time.Millisecond))
	rig.Eventually(t, 10*time.Second, "all of it", func() bool { return a.count() == 50 })
	in.log.awaitReady(t, 5*time.Second)
}

// A stop takes nothing more and waits for what is on its way: nothing comes twice.
func TestStopWithMailOnItsWay(t *testing.T) {
	t.Parallel()
	broker := rig.SharedBroker(t)
	feed := hpfeedstest.Start(t, hpfeedstest.Config{Users: users()})
	in := boot(t, settings(broker.URL(), feed.Port, "BRIDGE_FENCE_CHANNEL="+fenceChannel))
	in.log.awaitReady(t, 30*time.Second)
	a := listen(t, feed.Port, "spam.mails")
	rig.Eventually(t, 10*time.Second, "the audience is there", func() bool { return feed.Subscribers("spam.mails") == 1 })
	s := newSender(t, broker.URL())
	s.start(8, 1000)
	for range 3 {
		before := a.count()
		rig.Eventually(t, 10*time.Second, "mail flows", func() bool { return a.count() > before+50 })
		in.stop()
		in = boot(t, settings(broker.URL(), feed.Port, "BRIDGE_FENCE_CHANNEL="+fenceChannel))
	}
	s.stop()
	rig.Eventually(t, 30*time.Second, "all has come", func() bool { missing, _ := a.account(s.accepted); return len(missing) == 0 })
	if _, duplicates := a.account(s.accepted); duplicates > 0 {
		t.Errorf("%d duplicates of clean stops", duplicates)
	}
}

// Each start that is refused says why in one sentence, and exits with 2.
func TestRefusedStarts(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		env  []string
		want string
	}{
		{"a fence without a channel", []string{"BRIDGE_CONFIRM=fence"}, "BRIDGE_FENCE_CHANNEL must be set when BRIDGE_CONFIRM is fence"},
		{"a channel for no fence", []string{"BRIDGE_CONFIRM=drained", "BRIDGE_FENCE_CHANNEL=f"}, "BRIDGE_FENCE_CHANNEL contradicts BRIDGE_CONFIRM"},
		{"a fence among mail", []string{"BRIDGE_FENCE_CHANNEL=spam.mails"}, "BRIDGE_FENCE_CHANNEL must not be one of HPFEEDS_CHANNELS"},
		{"a channel that no frame carries", []string{"BRIDGE_FENCE_CHANNEL=" + strings.Repeat("x", 200)}, "BRIDGE_FENCE_CHANNEL must"},
		{"dead letters that come round", []string{"BRIDGE_DEADLETTER=spam.hpfeeds"}, "BRIDGE_DEADLETTER must not be BRIDGE_QUEUE"},
		{"everybody's queue", []string{"BRIDGE_QUEUE=spam.mails"}, "BRIDGE_QUEUE must not be AMQP_QUEUE"},
		{"no prefetch", []string{"BRIDGE_PREFETCH=0"}, "BRIDGE_PREFETCH must be between 1 and 65535, not 0"},
		{"little memory", []string{"BRIDGE_MEMORY=1000"}, "BRIDGE_MEMORY must be at least 1MiB"},
		{"an unknown way", []string{"BRIDGE_CONFIRM=hope"}, "BRIDGE_CONFIRM must be auto or drained or fence"},
		{"no secret", []string{"HPFEEDS_HOST=x"}, "HPFEEDS_SECRET must be set when HPFEEDS_HOST is"},
		{"a misspelt variable", []string{"BRIDGE_QUEU=x"}, "BRIDGE_QUEU is no setting"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var stderr console
			signals := make(chan os.Signal, 1)
			signals <- syscall.SIGTERM // a start that is not refused ends at once
			code := daemon.Main(service(), daemon.Process{Env: test.env, Stdout: io.Discard, Stderr: &stderr, Signals: signals})
			if code != daemon.ExitRefused {
				t.Errorf("exit code %d", code)
			}
			if got := stderr.String(); !strings.Contains(got, test.want) || strings.Count(got, "\n") > 1 {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// The file of the package that this one replaces: on when its type is hpfeeds, and with all of its channels.
func TestOldFeedFile(t *testing.T) {
	t.Parallel()
	text := "---\ntype: %s\namqp:\n  ident: reader\n  secret: geheim\n  host: broker.example\n  port: 5671\n  vhost: \"/\"\n" +
		"  exchange: spam\n  routing_key: \"spam.mails\"\n  tls: True\n  check_cert: False\nhpfeeds:\n  ident: collector\n  secret: geheim\n" +
		"  host: feed.example\n  port: 10001\n  tls: False\n  channels:\n    - spam.mails\n    - spam.other\n"
	for _, test := range []struct {
		kind string
		env  []string
		on   bool
	}{
		{"hpfeeds", nil, true},
		{"amqp", nil, false},
		{"amqp", []string{"HPFEEDS_HOST=127.0.0.1"}, true},
	} {
		feed := filepath.Join(t.TempDir(), "feed_config.yml")
		if err := os.WriteFile(feed, fmt.Appendf(nil, text, test.kind), 0o600); err != nil {
			t.Fatal(err)
		}
		var stdout, stderr console
		code := daemon.Main(service(), daemon.Process{Args: []string{"-f", feed, "config"}, Env: test.env, Stdout: &stdout, Stderr: &stderr})
		if code != daemon.ExitOK {
			t.Fatalf("exit code %d: %s", code, &stderr)
		}
		for _, want := range []string{"broker.example", `ident: "collector"`, "10001", "spam.other", "9603"} {
			if !strings.Contains(stdout.String(), want) {
				t.Errorf("the configuration has no %s:\n%s", want, &stdout)
			}
		}
		if strings.Contains(stdout.String(), "geheim") {
			t.Error("the secret is shown")
		}
		in := boot(t, append(test.env, "AMQP_URL=amqp://127.0.0.1:1", "ADMIN_ADDR=127.0.0.1:0"), "-f", feed)
		rig.Eventually(t, 10*time.Second, "/readyz answers", func() bool { _, text := in.log.ask(t, "/readyz"); return text != "" })
		if _, text := in.log.ask(t, "/readyz"); strings.Contains(text, "not configured") == test.on {
			t.Errorf("type %s, %v: %s", test.kind, test.env, text)
		}
		in.stop()
	}
}
