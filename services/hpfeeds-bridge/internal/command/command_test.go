package command

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"spamtraps.internal/hpfeeds-bridge/internal/config"
	"spamtraps.internal/libs/daemon"
	"spamtraps.internal/libs/hpfeeds"
	"spamtraps.internal/libs/hpfeeds/hpfeedstest"
	"spamtraps.internal/libs/rig"
	"spamtraps.internal/libs/secret"
)

func TestMain(m *testing.M) {
	hpfeedstest.Main()
	os.Exit(m.Run())
}

// output is what a command writes.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

func users() map[string]hpfeedstest.User {
	return map[string]hpfeedstest.User{
		"writer": {Secret: "geheim", Publish: []string{"spam.mails", "fence"}, Subscribe: []string{"fence"}},
		"reader": {Secret: "lesen", Subscribe: []string{"spam.mails"}},
	}
}

func settings(feed hpfeeds.Config) config.Config {
	cfg := config.Defaults()
	cfg.HPFeeds = feed
	cfg.On = true
	return cfg
}

// publishAll publishes as the writer, once the reader is there.
func publishAll(t *testing.T, broker *hpfeedstest.Running, payloads ...[]byte) {
	t.Helper()
	rig.Eventually(t, 20*time.Second, "the subscription", func() bool { return broker.Subscribers("spam.mails") > 0 })
	c, err := hpfeeds.Dial(t.Context(), broker.Config("writer", "geheim"), hpfeeds.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	for _, payload := range payloads {
		err = errors.Join(err, c.Publish("spam.mails", payload))
	}
	if err = errors.Join(err, c.Flush()); err != nil {
		t.Fatal(err)
	}
}

// hostile are mails that would like to do something to a terminal or to a folder.
var hostile = []struct{ mail, subject string }{
	{"Subject: plain\r\n\r\nx", "plain"},
	{"Subject: =?utf-8?q?caf=C3=A9?=\r\n\r\nx", "café"},
	{"Subject: =?utf-8?b?" + base64.StdEncoding.EncodeToString([]byte("\x1b]0;pwned\x07\u202egpj\n\u009b31m")) + "?=\r\n\r\nx", "�]0;pwned��gpj��31m"},
	{"Subject: \x1b[2Jred\r\n\r\nx", "�[2Jred"},
	{"Subject: ../../etc/passwd\r\n\r\nx", "../../etc/passwd"},
	{"Subject: " + strings.Repeat("long ", 100) + "\r\n\r\nx", strings.Repeat("long ", 16) + "…"},
	{"no header at all", ""},
	{"\x00\xff\xfe", ""},
	{"Subject: folded\r\n over lines\r\n\r\nx", "folded over lines"},
}

func TestTail(t *testing.T) {
	broker := hpfeedstest.Start(t, hpfeedstest.Config{Users: users()})
	folder := t.TempDir()
	var out, notes output
	tail := &tailer{tailOptions: tailOptions{folder: folder, count: len(hostile) + 1}, out: &out, notes: &notes}
	ended := make(chan int, 1)
	go func() { ended <- tail.main(t.Context(), settings(broker.Config("reader", "lesen")), nil) }()
	var payloads [][]byte
	for _, h := range hostile {
		payloads = append(payloads, []byte(h.mail))
	}
	wrapped := "Subject: wrapped\r\n\r\nx"
	payloads = append(payloads, fmt.Appendf(nil, `{"version":1,"message_id":"m","mail":%q}`, base64.StdEncoding.EncodeToString([]byte(wrapped))))
	publishAll(t, broker, payloads...)
	if code := <-ended; code != daemon.ExitOK {
		t.Fatalf("code %d: %s", code, notes.String())
	}
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	want := append(slices.Clone(hostile), struct{ mail, subject string }{wrapped, "wrapped"})
	if len(lines) != len(want) {
		t.Fatalf("%d lines:\n%q", len(lines), out.String())
	}
	for i, h := range want {
		if end := fmt.Sprintf("  spam.mails  %10d  %x  %s", len(h.mail), sha256.Sum256([]byte(h.mail)), h.subject); !strings.HasSuffix(lines[i], end) {
			t.Errorf("line %d is %q, want …%q", i, lines[i], end)
		}
	}
	entries, err := os.ReadDir(folder)
	if err != nil || len(entries) != len(want) {
		t.Fatalf("%d files: %v", len(entries), err)
	}
	for i, entry := range entries { // the names are in the order of their coming
		body, err := os.ReadFile(filepath.Join(folder, entry.Name()))
		if err != nil || string(body) != want[i].mail {
			t.Errorf("%s is %q, want %q", entry.Name(), body, want[i].mail)
		}
		if name := entry.Name(); strings.HasPrefix(name, ".") || !strings.HasSuffix(name, ".eml") || strings.Trim(name, "0123456789abcdefTml.-") != "" {
			t.Errorf("a file called %q", name)
		}
	}
}

// TestTailComesBack: the broker's death is told once, and is none of its own.
func TestTailComesBack(t *testing.T) {
	broker := hpfeedstest.StartProcess(t, hpfeedstest.Config{Users: users(), Hold: map[string]int{"spam.mails": 1}})
	ctx, stop := context.WithCancel(t.Context())
	var out, notes output
	tail := &tailer{out: &out, notes: &notes}
	ended := make(chan int, 1)
	go func() { ended <- tail.main(ctx, settings(broker.Config("reader", "lesen")), []string{"spam.mails"}) }()
	send := func(text string) {
		t.Helper()
		c, err := hpfeeds.Dial(ctx, broker.Config("writer", "geheim"), hpfeeds.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		if err := errors.Join(c.Publish("spam.mails", []byte("Subject: "+text+"\r\n\r\n")), c.Flush()); err != nil {
			t.Fatal(err)
		}
		rig.Eventually(t, 20*time.Second, "the mail "+text, func() bool { return strings.Contains(out.String(), text) })
	}
	send("before")
	broker.Kill()
	rig.Eventually(t, 20*time.Second, "the death is noticed", func() bool { return strings.Contains(notes.String(), "connection refused") })
	dead := &tailer{out: io.Discard, notes: &notes}
	trying, enough := context.WithTimeout(ctx, time.Second) // a handful of tries
	defer enough()
	if code := dead.main(trying, settings(broker.Config("reader", "lesen")), nil); code != daemon.ExitOK {
		t.Errorf("code %d: %s", code, notes.String())
	}
	for line := range strings.Lines(notes.String()) { // that of each of the two
		if n := strings.Count(notes.String(), line); n > 2 {
			t.Errorf("said %d times: %s", n, line)
		}
	}
	broker.Start()
	send("after")
	stop()
	if code := <-ended; code != daemon.ExitOK {
		t.Errorf("code %d: %s", code, notes.String())
	}
}

// TestTailOfLargeMails: who has set a higher limit for the bridge sees what it lets through.
func TestTailOfLargeMails(t *testing.T) {
	broker := hpfeedstest.Start(t, hpfeedstest.Config{Users: users(), Manners: hpfeedstest.Tentacool})
	cfg := settings(broker.Config("reader", "lesen"))
	cfg.HPFeeds.MaxPayload = 4 << 20
	var out, notes output
	tail := &tailer{tailOptions: tailOptions{count: 1}, out: &out, notes: &notes}
	ended := make(chan int, 1)
	go func() { ended <- tail.main(t.Context(), cfg, nil) }()
	rig.Eventually(t, 20*time.Second, "the subscription", func() bool { return broker.Subscribers("spam.mails") > 0 })
	writer := broker.Config("writer", "geheim")
	writer.MaxPayload = cfg.HPFeeds.MaxPayload
	c, err := hpfeeds.Dial(t.Context(), writer, hpfeeds.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if err := errors.Join(c.Publish("spam.mails", make([]byte, cfg.HPFeeds.MaxPayload)), c.Flush()); err != nil {
		t.Fatal(err)
	}
	select {
	case code := <-ended:
		if code != daemon.ExitOK || !strings.Contains(out.String(), "4194304") {
			t.Errorf("code %d: %s%s", code, out.String(), notes.String())
		}
	case <-c.Done():
		t.Error(c.Err())
	case <-time.After(20 * time.Second):
		t.Errorf("it has not come: %s", notes.String())
	}
}

func TestTailRefuses(t *testing.T) {
	broker := hpfeedstest.Start(t, hpfeedstest.Config{Users: users()})
	none := settings(hpfeeds.Defaults())
	for _, test := range []struct {
		name     string
		cfg      config.Config
		folder   string
		channels []string
		code     int
		want     string
	}{
		{"not configured", none, "", nil, daemon.ExitRefused, "HPFEEDS_HOST is not set"},
		{"a channel without a name", settings(broker.Config("reader", "lesen")), "", []string{""}, daemon.ExitRefused, "a channel must not be empty"},
		{"no such folder", settings(broker.Config("reader", "lesen")), "/nowhere/at/all", nil, daemon.ExitFailed, "no such file or directory"},
		{"a wrong secret", settings(broker.Config("reader", "falsch")), "", nil, daemon.ExitFailed, "ident or secret is wrong"},
		{"no right", settings(broker.Config("writer", "geheim")), "", nil, daemon.ExitFailed, "the ident has no right to the channel"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var notes output
			tail := &tailer{tailOptions: tailOptions{folder: test.folder}, out: io.Discard, notes: &notes}
			if code := tail.main(t.Context(), test.cfg, test.channels); code != test.code || !strings.Contains(notes.String(), test.want) {
				t.Errorf("code %d: %s", code, notes.String())
			}
		})
	}
}

func TestCheck(t *testing.T) {
	rabbit := rig.SharedBroker(t)
	good := hpfeedstest.Start(t, hpfeedstest.Config{Name: "ours", Users: users()})
	tentacool := hpfeedstest.Start(t, hpfeedstest.Config{Users: users(), Manners: hpfeedstest.Tentacool})
	_, http := hpfeedstest.StartScript(t, "http")
	_, hangsUp := hpfeedstest.StartScript(t, "auth-silent-close")
	for _, test := range []struct {
		name   string
		change func(*config.Config)
		o      checkOptions
		bad    bool
		want   []string
	}{
		{"all is well", func(*config.Config) {}, checkOptions{}, false, []string{
			`ok    rabbitmq: user "admin" is logged in at`, `note  rabbitmq: exchange "spam" is absent`, `note  rabbitmq: queue "spam.hpfeeds" is absent`,
			`ok    hpfeeds: "writer" is logged in at 127.0.0.1:`, `which calls itself "ours"`,
			`ok    fence: what is published to channel "fence" comes back`, `note  channel "spam.mails": a mail may have 1048558 bytes`, "check --publish sends one",
		}},
		{"with a message", func(*config.Config) {}, checkOptions{publish: true}, false, []string{`ok    channel "spam.mails": a test message was taken`}},
		{"with a message that is not allowed", func(c *config.Config) { c.HPFeeds.Channels = []string{"private"} }, checkOptions{publish: true}, true, []string{
			`FAIL  channel "private": `, `Authkey not allowed to pub here`, "ask the broker's operator for the right",
		}},
		{"no fence, a message that is not allowed", func(c *config.Config) { c.HPFeeds.Channels, c.Bridge.FenceChannel = []string{"private"}, "" }, checkOptions{publish: true}, true, []string{
			"note  fence: there is none", `FAIL  channel "private": `, `Authkey not allowed to pub here`,
		}},
		{"a fence that is not allowed", func(c *config.Config) { c.Bridge.FenceChannel = "other" }, checkOptions{}, true, []string{`FAIL  fence: channel "other": `, "Authkey not allowed to sub here"}},
		{"tentacool", func(c *config.Config) { c.HPFeeds.Port = tentacool.Port }, checkOptions{publish: true}, false, []string{"ok    fence", "a test message was taken"}},
		{"a wrong secret", func(c *config.Config) { c.HPFeeds.Secret = secret.New("falsch") }, checkOptions{}, true, []string{
			"FAIL  hpfeeds: ", "ident or secret is wrong", "set HPFEEDS_IDENT and HPFEEDS_SECRET",
		}},
		{"nobody there", func(c *config.Config) { c.HPFeeds.Port = 1 }, checkOptions{}, true, []string{"FAIL  hpfeeds: ", "connection refused: look at HPFEEDS_HOST"}},
		{"something else there", func(c *config.Config) { c.HPFeeds.Port = http.Port }, checkOptions{}, true, []string{"FAIL  hpfeeds: ", "does not speak hpfeeds", "look at HPFEEDS_PORT"}},
		{"it hangs up", func(c *config.Config) { c.HPFeeds.Port = hangsUp.Port }, checkOptions{}, true, []string{"FAIL  hpfeeds: ", "soon after the login", "what its log says"}},
		{"not configured", func(c *config.Config) { c.HPFeeds, c.On = hpfeeds.Defaults(), false }, checkOptions{}, true, []string{"FAIL  hpfeeds: no broker is configured: set HPFEEDS_HOST"}},
		{"no RabbitMQ", func(c *config.Config) { c.AMQP.URL = secret.New("amqp://u:p@127.0.0.1:1/") }, checkOptions{}, true, []string{"FAIL  rabbitmq: ", "look at the AMQP_ settings", "ok    fence"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg := settings(good.Config("writer", "geheim"))
			cfg.AMQP.URL = secret.New(rabbit.URL())
			cfg.Bridge.FenceChannel = "fence"
			test.change(&cfg)
			var out output
			check := &checker{checkOptions: test.o, out: &out, quiet: 300 * time.Millisecond, echo: 5 * time.Second}
			code := check.main(t.Context(), cfg)
			if want := map[bool]int{true: daemon.ExitFailed, false: daemon.ExitOK}[test.bad]; code != want {
				t.Errorf("code %d", code)
			}
			for _, want := range test.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("no %q", want)
				}
			}
			if t.Failed() {
				t.Log(out.String())
			}
			if strings.Contains(out.String(), "geheim") || strings.Contains(out.String(), "falsch") {
				t.Error("it shows the secret")
			}
		})
	}
	for _, kind := range []string{"queues", "exchanges"} {
		var objects []struct{ Name string }
		rabbit.API("GET", "/api/"+kind+"/"+rabbit.VHost, nil, &objects)
		for _, o := range objects {
			if strings.HasPrefix(o.Name, "spam") {
				t.Errorf("check has declared %s %s", kind, o.Name)
			}
		}
	}
}

// TestCheckIsSafeForATerminal: whatever a broker says, a line stays one, and does nothing to the terminal.
func TestCheckIsSafeForATerminal(t *testing.T) {
	var out output
	(&checker{out: &out}).problem("rabbitmq", "\x1b[2Jno\r\n\u202e", "do something")
	if got := out.String(); strings.ContainsAny(got, "\x1b\r\u202e") || strings.Count(got, "\n") != 1 {
		t.Errorf("%q", got)
	}
}
