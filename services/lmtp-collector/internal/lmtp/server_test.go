package lmtp_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rabbitmq/amqp091-go"
	"github.com/rs/zerolog"

	"spamtraps.internal/lmtp-collector/internal/lmtp"
	"spamtraps.internal/lmtp-collector/internal/lmtptest"
)

func TestConnectionLimit(t *testing.T) {
	r := start(t, &memory{}, func(cfg *lmtp.Config) { cfg.MaxConnections = 2 })
	first, second := r.hello(t), r.hello(t)
	for range 3 {
		if _, err := lmtptest.Dial(r.network, r.address); err == nil || !strings.Contains(err.Error(), "421 4.3.2") {
			t.Fatalf("the third connection: %v", err)
		}
	}
	if n := r.counted(t, "spamtraps_lmtp_connections_refused_total"); n != 3 {
		t.Errorf("%v were counted as refused", n)
	}
	if n := strings.Count(r.log.String(), "LMTP_MAX_CONNECTIONS"); n != 1 {
		t.Errorf("the log says it %d times in a minute", n)
	}
	first.say("QUIT\r\n", "221")
	await(t, "there is room again", func() bool { return r.counted(t, "spamtraps_lmtp_open_connections") == 1 })
	r.hello(t)
	second.say("NOOP\r\n", "250")
}

func TestSessionsDoNotDisturbEachOther(t *testing.T) {
	var publisher memory
	r := start(t, &publisher, nil)
	for range 50 { // idle, and in the middle of a mail
		r.dial(t)
		r.hello(t).say("MAIL FROM:<>\r\nRCPT TO:<b@y>\r\nDATA\r\nhalf", "250", "250", "354")
	}
	if _, err := r.hello(t).Deliver("a@x", []string{"b@y"}, []byte("x\r\n")); err != nil {
		t.Error(err)
	}
	if got := len(publisher.taken()); got != 1 {
		t.Errorf("%d mails", got)
	}
}

func TestStop(t *testing.T) {
	const head = "MAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nDATA\r\n"

	t.Run("idle sessions end at once", func(t *testing.T) {
		r := start(t, &memory{}, nil)
		silent, greeted, begun := r.dial(t), r.hello(t), r.hello(t)
		begun.say("MAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\n", "250", "250")
		began := time.Now()
		r.stop()
		for _, c := range []*client{silent, greeted, begun} {
			c.expect("421 4.3.2")
			c.expectEnd()
		}
		<-r.stopped
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("it took %s", took)
		}
		if _, err := lmtptest.Dial(r.network, r.address); err == nil {
			t.Error("a connection was let in after the end")
		}
	})
	t.Run("a mail that is being sent is finished", func(t *testing.T) {
		var publisher memory
		r := start(t, &publisher, nil)
		sending, idle := r.hello(t), r.hello(t)
		sending.say(head+"half\r\n", "250", "250", "354")
		r.stop()
		idle.expect("421") // it has begun to stop
		sending.say("other half\r\n.\r\nMAIL FROM:<c@x>\r\n", "250", "421 4.3.2")
		<-r.stopped
		if got := publisher.taken(); len(got) != 1 || string(got[0].Body) != "half\r\nother half\r\n" {
			t.Errorf("taken: %q", got)
		}
	})
	t.Run("one that takes too long is deferred", func(t *testing.T) {
		var publisher memory
		r := startWithGrace(t, &publisher, nil, 100*time.Millisecond)
		c := r.hello(t)
		c.say(head+"half\r\n", "250", "250", "354")
		r.stop()
		c.expect("421 4.3.2")
		c.expectEnd()
		<-r.stopped
		if len(publisher.taken()) != 0 {
			t.Error("half a mail was published")
		}
	})
	t.Run("one that is being published is waited for", func(t *testing.T) {
		publishing, confirm := make(chan struct{}), make(chan struct{})
		publisher := memory{publish: func(ctx context.Context, _ amqp091.Publishing) error {
			close(publishing)
			select {
			case <-confirm:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}}
		r := start(t, &publisher, nil)
		sending, idle := r.hello(t), r.hello(t)
		sending.say(head+".\r\n", "250", "250", "354")
		<-publishing
		r.stop()
		idle.expect("421")
		select {
		case <-r.stopped:
			t.Error("it stopped without the mail")
		case <-time.After(50 * time.Millisecond):
		}
		close(confirm)
		sending.expect("250")
		sending.expect("421 4.3.2")
		<-r.stopped
	})
	t.Run("one whose confirm does not come is deferred", func(t *testing.T) {
		publisher := memory{publish: func(ctx context.Context, _ amqp091.Publishing) error {
			<-ctx.Done()
			return ctx.Err()
		}}
		r := startWithGrace(t, &publisher, nil, 100*time.Millisecond)
		c := r.hello(t)
		c.say(head+".\r\n", "250", "250", "354")
		r.stop()
		c.expect("451 4.3.0")
		c.expect("421 4.3.2")
		<-r.stopped
	})
}

func TestServeReturnsWhenTheListenerFails(t *testing.T) {
	listener, err := lmtp.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := lmtp.NewServer(lmtp.Defaults(), lmtp.Identity{}, &memory{}, zerolog.Nop(), prometheus.NewRegistry())
	if ok, text := server.Health(); ok || text != "lmtp: not listening" {
		t.Errorf("before: %v, %s", ok, text)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(context.Background(), listener, time.Second) }()
	await(t, "it is healthy", func() bool {
		ok, text := server.Health()
		return ok && text == "lmtp: listening on "+listener.Addr().String()+", 0 connections"
	})
	_ = listener.Close()
	if err := <-served; !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
	if ok, _ := server.Health(); ok {
		t.Error("it is healthy after its end")
	}
}

func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lmtp")
	onSocket := func(cfg *lmtp.Config) { cfg.Listen = "unix:" + path }
	var publisher memory
	r := start(t, &publisher, onSocket)
	if _, err := r.hello(t).Deliver("a@x", []string{"b@y"}, []byte("x\r\n")); err != nil {
		t.Error(err)
	}
	if got := publisher.last(t).LMTP.Peer; got != "" {
		t.Errorf("the peer is %q", got)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o666 {
		t.Errorf("the socket: %v, %v", info.Mode(), err)
	}

	if _, err := lmtp.Listen(t.Context(), "unix:"+path); err == nil || !strings.Contains(err.Error(), "another process listens there") {
		t.Errorf("a second listener: %v", err)
	}
	r.hello(t) // the first one still has it
	r.stop()
	<-r.stopped
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left behind: %v", err)
	}
}

func TestStaleUnixSocketIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lmtp")
	var config net.ListenConfig
	killed, err := config.Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	killed.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = killed.Close()
	start(t, &memory{}, func(cfg *lmtp.Config) { cfg.Listen = "unix:" + path }).hello(t)
}

func TestOtherFileIsNotReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lmtp")
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := lmtp.Listen(t.Context(), "unix:"+path)
	if err == nil || !strings.Contains(err.Error(), "the file exists and is no socket") {
		t.Errorf("got %v", err)
	}
	if text, err := os.ReadFile(path); string(text) != "mine" {
		t.Errorf("the file is %q, %v", text, err)
	}
}

func TestConfigProblems(t *testing.T) {
	tests := []struct {
		name   string
		change func(*lmtp.Config)
		want   string
	}{
		{"no port", func(c *lmtp.Config) { c.Listen = "127.0.0.1" }, `LISTEN must be HOST:PORT, :PORT or unix:/path, not "127.0.0.1"`},
		{"port is a word", func(c *lmtp.Config) { c.Listen = ":lmtp" }, `LISTEN must be HOST:PORT, :PORT or unix:/path, not ":lmtp"`},
		{"relative socket", func(c *lmtp.Config) { c.Listen = "unix:lmtp" }, `LISTEN must be unix: and an absolute path, not "unix:lmtp"`},
		{"port of a socket", func(c *lmtp.Config) { c.Listen, c.Port = "unix:/x", 25 }, "port contradicts LMTP_LISTEN, which is a unix socket: choose one"},
		{"port too high", func(c *lmtp.Config) { c.Port = 65536 }, "port must be between 1 and 65535, not 65536"},
		{"address as domain", func(c *lmtp.Config) { c.Domains = []string{"a@b"} }, `DOMAINS must be domains like example.org, not "a@b"`},
		{"negative size", func(c *lmtp.Config) { c.MaxMessageBytes = -1 }, "MAX_MESSAGE_BYTES must be at least 1, not -1"},
		{"no connections", func(c *lmtp.Config) { c.MaxConnections = 0 }, "MAX_CONNECTIONS must be at least 1, not 0"},
		{"no recipients", func(c *lmtp.Config) { c.MaxRecipients = 0 }, "MAX_RECIPIENTS must be at least 1, not 0"},
		{"negative rate", func(c *lmtp.Config) { c.MinRate = -1 }, "MIN_RATE must not be negative, not -1"},
		{"no patience", func(c *lmtp.Config) { c.IdleTimeout = 0 }, "IDLE_TIMEOUT must be more than 0s, not 0s"},
		{
			"less for all than for a part", func(c *lmtp.Config) { c.TransactionTimeout = time.Minute },
			"TRANSACTION_TIMEOUT must not be less than LMTP_IDLE_TIMEOUT (5m0s), not 1m0s",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			cfg := lmtp.Defaults()
			test.change(&cfg)
			var got []string
			cfg.Validate(func(name, problem string) { got = append(got, name+" "+problem) })
			if len(got) != 1 || got[0] != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestPortReplacesThatOfListen(t *testing.T) {
	for listen, want := range map[string]string{"127.0.0.1:24": "127.0.0.1:8587", ":24": ":8587", "[::1]:24": "[::1]:8587"} {
		cfg := lmtp.Defaults()
		cfg.Listen, cfg.Port = listen, 8587
		cfg.Validate(func(name, problem string) { t.Errorf("%s %s", name, problem) })
		if cfg.Listen != want {
			t.Errorf("got %s, want %s", cfg.Listen, want)
		}
	}
}
