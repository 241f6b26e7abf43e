package hpfeeds_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"spamtraps.internal/libs/hpfeeds"
	"spamtraps.internal/libs/hpfeeds/hpfeedstest"
	"spamtraps.internal/libs/rig"
)

// users are a publisher and a reader of two channels, and what the bridge's fence needs.
func users() map[string]hpfeedstest.User {
	return map[string]hpfeedstest.User{
		"writer": {Secret: "geheim", Publish: []string{"spam.mails", "spam.other", "fence"}, Subscribe: []string{"fence"}},
		"reader": {Secret: "lesen", Subscribe: []string{"spam.mails", "spam.other"}},
	}
}

// connect dials, and closes when the test ends.
func connect(t testing.TB, cfg hpfeeds.Config) *hpfeeds.Conn {
	t.Helper()
	c, err := hpfeeds.Dial(t.Context(), cfg, hpfeeds.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// subscriber connects as the reader and returns when the broker has its subscriptions.
func subscriber(t testing.TB, broker *hpfeedstest.Running, channels ...string) *hpfeeds.Conn {
	t.Helper()
	c := connect(t, broker.Config("reader", "lesen"))
	if err := c.Subscribe(channels...); err != nil {
		t.Fatal(err)
	}
	for _, channel := range channels {
		rig.Eventually(t, 10*time.Second, "the subscription of "+channel, func() bool { return broker.Subscribers(channel) > 0 })
	}
	return c
}

func receive(t testing.TB, c *hpfeeds.Conn) hpfeeds.Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	m, err := c.Receive(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// end waits until a Conn has ended, and returns why.
func end(t testing.TB, c *hpfeeds.Conn) *hpfeeds.Error {
	t.Helper()
	select {
	case <-c.Done():
	case <-time.After(20 * time.Second):
		t.Fatal("the connection does not end")
	}
	return reasonOf(t, c.Err())
}

func reasonOf(t testing.TB, err error) *hpfeeds.Error {
	t.Helper()
	var e *hpfeeds.Error
	if !errors.As(err, &e) {
		t.Fatalf("%v is no *hpfeeds.Error", err)
	}
	return e
}

func TestPublishAndReceive(t *testing.T) {
	broker := hpfeedstest.Start(t, hpfeedstest.Config{Name: "ours", Users: users()})
	in := subscriber(t, broker, "spam.mails", "spam.other")
	out := connect(t, broker.Config("writer", "geheim"))
	if out.Broker() != "ours" {
		t.Errorf("the broker's name is %q", out.Broker())
	}
	var sent []hpfeeds.Message
	for i, payload := range [][]byte{
		[]byte("a mail"),
		{},
		{0},
		bytes.Repeat([]byte{0, 0xff, '\r', '\n'}, 1000),
		make([]byte, writeBuffer-40),
		make([]byte, writeBuffer),
		make([]byte, writeBuffer+1),
		make([]byte, hpfeeds.MaxPayload("writer", "spam.mails")),
		[]byte("the last"),
	} {
		channel := []string{"spam.mails", "spam.other"}[i%2]
		if err := out.Publish(channel, payload); err != nil {
			t.Fatal(err)
		}
		sent = append(sent, hpfeeds.Message{Ident: "writer", Channel: channel, Payload: bytes.Clone(payload)})
		clear(payload) // it may be reused
	}
	if err := out.Flush(); err != nil {
		t.Fatal(err)
	}
	for i, want := range sent {
		got := receive(t, in)
		if got.Ident != want.Ident || got.Channel != want.Channel || !bytes.Equal(got.Payload, want.Payload) {
			t.Fatalf("message %d: %s %s %d bytes, want %s %s %d bytes", i, got.Ident, got.Channel, len(got.Payload), want.Ident, want.Channel, len(want.Payload))
		}
	}
	rig.Eventually(t, 10*time.Second, "all to be acknowledged", func() bool {
		n, err := out.Unsent()
		return err == nil && n == 0
	})
	if err := out.Err(); err != nil {
		t.Error(err)
	}
}

const writeBuffer = 128 << 10

// TestPublishWaitsForFlush: few messages are one write, when they are flushed and not before.
func TestPublishWaitsForFlush(t *testing.T) {
	script, broker := hpfeedstest.StartScript(t, "nonce-1")
	out := connect(t, broker.Config("writer", "x"))
	for range 10 {
		if err := out.Publish("spam.mails", make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := out.Unsent(); err != nil || n < 10*1000 {
		t.Errorf("Unsent is %d, %v before the flush", n, err)
	}
	if n := script.Messages(); n != 0 {
		t.Errorf("%d messages arrived before the flush", n)
	}
	if err := out.Flush(); err != nil {
		t.Fatal(err)
	}
	rig.Eventually(t, 10*time.Second, "the messages", func() bool { return script.Messages() == 10 })
}

func TestPayloadLimit(t *testing.T) {
	broker := hpfeedstest.Start(t, hpfeedstest.Config{Users: users()})
	out := connect(t, broker.Config("writer", "geheim"))
	err := out.Publish("spam.mails", make([]byte, hpfeeds.MaxPayload("writer", "spam.mails")+1))
	if e := reasonOf(t, err); !e.Permanent || e.Reason != hpfeeds.ReasonName || !strings.Contains(e.Error(), "1048559 bytes, and 1048558 fit") {
		t.Errorf("too large: %+v", e)
	}
	for _, channel := range []string{"", strings.Repeat("c", 128), "a\nb", "\xff"} {
		if e := reasonOf(t, out.Publish(channel, nil)); !e.Permanent || e.Reason != hpfeeds.ReasonName {
			t.Errorf("channel %q: %+v", channel, e)
		}
		if e := reasonOf(t, out.Subscribe(channel)); !e.Permanent || e.Reason != hpfeeds.ReasonName {
			t.Errorf("channel %q: %+v", channel, e)
		}
	}
	if out.Err() != nil {
		t.Errorf("the connection has ended: %v", out.Err())
	}
	cfg := broker.Config("writer", "geheim")
	cfg.MaxPayload = 10
	small := connect(t, cfg)
	if err := small.Publish("spam.mails", make([]byte, 10)); err != nil {
		t.Error(err)
	}
	if err := small.Publish("spam.mails", make([]byte, 11)); err == nil {
		t.Error("HPFEEDS_MAX_PAYLOAD does not count")
	}
}

// TestOversizeAtBroker: a broker with a smaller limit hangs up without a word, and the error says that this may be why.
func TestOversizeAtBroker(t *testing.T) {
	broker := hpfeedstest.Start(t, hpfeedstest.Config{Users: users(), MaxFrame: 1000})
	out := connect(t, broker.Config("writer", "geheim"))
	if err := errors.Join(out.Publish("spam.mails", make([]byte, 2000)), out.Flush()); err != nil {
		t.Fatal(err)
	}
	if e := end(t, out); e.Permanent || e.Reason != hpfeeds.ReasonHungUp || !strings.Contains(e.Error(), "too large") {
		t.Errorf("%+v", e)
	}
}

func TestRefusals(t *testing.T) {
	for _, test := range []struct {
		name     string
		manners  hpfeedstest.Manners
		ident    string
		password string
		do       func(*hpfeeds.Conn) error
		reason   hpfeeds.Reason
		text     string
	}{
		{"unknown ident", hpfeedstest.Python, "nobody", "geheim", nil, hpfeeds.ReasonAuth, `"Authentication failed for nobody"`},
		{"wrong secret", hpfeedstest.Python, "writer", "falsch", nil, hpfeeds.ReasonAuth, `"Authentication failed for writer"`},
		{"publish", hpfeedstest.Python, "writer", "geheim", publish("private"), hpfeeds.ReasonRights, `"Authkey not allowed to pub here. ident=writer, chan=private"`},
		{"subscribe", hpfeedstest.Python, "writer", "geheim", subscribe("private"), hpfeeds.ReasonRights, `"Authkey not allowed to sub here. ident=writer, chan=private"`},
		{"publish, tentacool", hpfeedstest.Tentacool, "writer", "geheim", publish("private"), hpfeeds.ReasonRights, `"accessfail"`},
		{"subscribe, tentacool", hpfeedstest.Tentacool, "writer", "geheim", subscribe("private"), hpfeeds.ReasonRights, `"accessfail"`},
		{"publish, HPFBroker", hpfeedstest.HPFBroker, "writer", "geheim", publish("private"), hpfeeds.ReasonRights, `chan=private"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			broker := hpfeedstest.Start(t, hpfeedstest.Config{Users: users(), Manners: test.manners})
			c := connect(t, broker.Config(test.ident, test.password))
			if test.do != nil {
				if err := test.do(c); err != nil {
					t.Fatal(err)
				}
			}
			e := end(t, c)
			if !e.Permanent || e.Reason != test.reason || !strings.Contains(e.Error(), test.text) {
				t.Errorf("%+v", e)
			}
			if strings.Contains(e.Error(), test.password) {
				t.Errorf("the secret is in %q", e.Error())
			}
			for what, err := range map[string]error{"Publish": c.Publish("spam.mails", nil), "Flush": c.Flush(), "Subscribe": c.Subscribe("spam.mails")} {
				if !errors.Is(err, error(e)) {
					t.Errorf("%s after the end: %v", what, err)
				}
			}
			if _, err := c.Unsent(); err == nil {
				t.Error("Unsent does not know of the end")
			}
		})
	}
}

func publish(channel string) func(*hpfeeds.Conn) error {
	return func(c *hpfeeds.Conn) error { return errors.Join(c.Publish(channel, []byte("x")), c.Flush()) }
}

func subscribe(channel string) func(*hpfeeds.Conn) error {
	return func(c *hpfeeds.Conn) error { return c.Subscribe(channel) }
}

// TestLastWords: a broker that refuses in the middle of a stream closes while we write, and its reason is reported all the same.
func TestLastWords(t *testing.T) {
	broker := hpfeedstest.Start(t, hpfeedstest.Config{Users: users()})
	for range 30 {
		c := connect(t, broker.Config("writer", "geheim"))
		var err error
		for err == nil {
			err = c.Publish("private", make([]byte, 64<<10))
		}
		if e := reasonOf(t, err); e.Reason != hpfeeds.ReasonRights {
			t.Fatalf("the broker's reason is lost: %v", err)
		}
	}
}

// TestFence is what the bridge builds on: when a token that was published comes back over a second connection, everything that was
// published before it has been handed on.
func TestFence(t *testing.T) {
	broker := hpfeedstest.Start(t, hpfeedstest.Config{Users: users(), Exact: true})
	in := subscriber(t, broker, "spam.mails")
	fence := connect(t, broker.Config("writer", "geheim"))
	if err := fence.Subscribe("fence"); err != nil {
		t.Fatal(err)
	}
	rig.Eventually(t, 10*time.Second, "the fence's subscription", func() bool { return broker.Subscribers("fence") == 1 })
	go func() {
		for {
			if _, err := in.Receive(t.Context()); err != nil {
				return
			}
		}
	}()
	out := connect(t, broker.Config("writer", "geheim"))
	for batch := range 20 {
		for range 100 {
			if err := out.Publish("spam.mails", make([]byte, 1000)); err != nil {
				t.Fatal(err)
			}
		}
		token := fmt.Sprintf("token %d", batch)
		if err := errors.Join(out.Publish("fence", []byte(token)), out.Flush()); err != nil {
			t.Fatal(err)
		}
		if m := receive(t, fence); string(m.Payload) != token {
			t.Fatalf("batch %d: %q", batch, m.Payload)
		}
		if s := broker.Stats(); s.Delivered < int64(100*(batch+1)) {
			t.Fatalf("batch %d: the token came back before the messages were handed on: %+v", batch, s)
		}
	}
}

// TestUnsentWhileStuck: a broker that does not read leaves bytes unacknowledged, and Close releases who waits.
func TestUnsentWhileStuck(t *testing.T) {
	_, broker := hpfeedstest.StartScript(t, "never-reads")
	c := connect(t, broker.Config("writer", "x"))
	stuck := make(chan error, 1)
	go func() {
		for {
			if err := c.Publish("spam.mails", make([]byte, 1<<20-100)); err != nil {
				stuck <- err
				return
			}
		}
	}()
	last, same := -1, 0
	rig.Eventually(t, 20*time.Second, "the kernel's buffers to be full", func() bool {
		n, err := c.Unsent()
		if err != nil {
			t.Fatal(err)
		}
		if n != last {
			last, same = n, 0
		}
		same++
		return n > 1<<20 && same > 25 // half a second: nothing more goes into the kernel, and Publish waits
	})
	_ = c.Close()
	select {
	case err := <-stuck:
		if e := reasonOf(t, err); e.Reason != hpfeeds.ReasonEnded {
			t.Errorf("%+v", e)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Close does not release Publish")
	}
}

// pipeTo dials a broker that is a function at the other end of a pipe, so that time can be synctest's.
func pipeTo(serve func(net.Conn)) hpfeeds.Options {
	return hpfeeds.Options{Dial: func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go serve(theirs)
		return ours, nil
	}}
}

func pipeConfig() hpfeeds.Config {
	cfg := hpfeeds.Defaults()
	cfg.Host = "broker.example"
	return cfg
}

var greeting = hpfeeds.AppendInfo(nil, "b", []byte{1, 2, 3, 4})

// TestSilence: a broker that stops at any point is given up in time.
func TestSilence(t *testing.T) {
	hang := func(c net.Conn, first []byte) {
		_, _ = c.Write(first)
		buf := make([]byte, 1<<20)
		for {
			if _, err := c.Read(buf); err != nil {
				return
			}
		}
	}
	for _, test := range []struct {
		name  string
		first []byte
		limit time.Duration
		dial  bool // it is Dial that fails
	}{
		{"no greeting", nil, 10 * time.Second, true},
		{"half a header", greeting[:3], 10 * time.Second, true},
		{"half a greeting", greeting[:8], 10 * time.Second, true},
		{"half a frame", append(bytes.Clone(greeting), 0, 0, 0, 20), 30 * time.Second, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin := time.Now()
				c, err := hpfeeds.Dial(t.Context(), pipeConfig(), pipeTo(func(c net.Conn) { hang(c, test.first) }))
				if err == nil {
					<-c.Done()
					err = c.Err()
				}
				if e := reasonOf(t, err); e.Reason != hpfeeds.ReasonSilent || e.Permanent || test.dial != (c == nil) {
					t.Errorf("%+v", e)
				}
				if took := time.Since(begin); took != test.limit {
					t.Errorf("given up after %v, not %v", took, test.limit)
				}
			})
		})
	}
}

// TestIdle: a connection that nothing happens on stays, and tells for how long.
func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := hpfeeds.Dial(t.Context(), pipeConfig(), pipeTo(func(c net.Conn) {
			_, _ = c.Write(greeting)
			buf := make([]byte, 1<<10)
			for {
				if _, err := c.Read(buf); err != nil {
					return
				}
			}
		}))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Hour)
		if c.Err() != nil || c.Idle() != 10*time.Hour {
			t.Errorf("idle for %v: %v", c.Idle(), c.Err())
		}
		if err := errors.Join(c.Publish("spam.mails", nil), c.Flush()); err != nil || c.Idle() != 0 {
			t.Errorf("after a message idle for %v: %v", c.Idle(), err)
		}
		_ = c.Close()
		synctest.Wait()
	})
}

// TestStuckWrite: what nothing takes for 30 s is given up; what is taken slowly is not.
func TestStuckWrite(t *testing.T) {
	for _, test := range []struct {
		name  string
		every time.Duration // the broker takes a little so often
		fails bool
	}{{"never", 0, true}, {"slowly", 29 * time.Second, false}} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, err := hpfeeds.Dial(t.Context(), pipeConfig(), pipeTo(func(c net.Conn) {
					_, _ = c.Write(greeting)
					_, _ = c.Read(make([]byte, 100)) // AUTH
					for test.every > 0 {
						time.Sleep(test.every)
						if _, err := c.Read(make([]byte, 64<<10)); err != nil {
							return
						}
					}
				}))
				if err != nil {
					t.Fatal(err)
				}
				begin := time.Now()
				err = errors.Join(c.Publish("spam.mails", make([]byte, 1<<20-100)), c.Flush())
				switch {
				case !test.fails && err != nil:
					t.Error(err)
				case test.fails:
					if e := reasonOf(t, err); e.Reason != hpfeeds.ReasonSilent || time.Since(begin) != 30*time.Second {
						t.Errorf("after %v: %+v", time.Since(begin), e)
					}
				}
				_ = c.Close()
				time.Sleep(test.every) // for the broker to notice
				synctest.Wait()
			})
		})
	}
}

func TestDialGivesUp(t *testing.T) {
	_, broker := hpfeedstest.StartScript(t, "silent")
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	time.AfterFunc(50*time.Millisecond, func() { cancel(cause) })
	_, err := hpfeeds.Dial(ctx, broker.Config("writer", "x"), hpfeeds.Options{})
	if e := reasonOf(t, err); e.Reason != hpfeeds.ReasonEnded || !errors.Is(err, cause) {
		t.Errorf("%+v", e)
	}
}

func TestUnreachable(t *testing.T) {
	cfg := hpfeeds.Defaults()
	cfg.Host = "127.0.0.1"
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg.Port = listener.Addr().(*net.TCPAddr).Port
	_ = listener.Close()
	_, err = hpfeeds.Dial(t.Context(), cfg, hpfeeds.Options{})
	if e := reasonOf(t, err); e.Permanent || e.Reason != hpfeeds.ReasonUnreachable || !strings.HasSuffix(e.Error(), ": connection refused") {
		t.Errorf("%+v", e)
	}
	cfg.Host = "does-not-exist.invalid"
	_, err = hpfeeds.Dial(t.Context(), cfg, hpfeeds.Options{})
	if e := reasonOf(t, err); e.Permanent || e.Reason != hpfeeds.ReasonUnreachable || !strings.Contains(e.Error(), "does not resolve") {
		t.Errorf("%+v", e)
	}
}

func TestTLS(t *testing.T) {
	ca, stranger := rig.NewCA(t), rig.NewCA(t)
	secured := func(notAfter time.Time, names ...string) *hpfeedstest.Running {
		cert, key := ca.Issue(notAfter, names...)
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		return hpfeedstest.Start(t, hpfeedstest.Config{Users: users(), TLS: &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}}})
	}
	tomorrow, yesterday := time.Now().Add(24*time.Hour), time.Now().Add(-time.Hour)
	good := secured(tomorrow, "127.0.0.1")
	wrongName, expired := secured(tomorrow, "other.example"), secured(yesterday, "127.0.0.1")
	plain := hpfeedstest.Start(t, hpfeedstest.Config{Users: users()})
	for _, test := range []struct {
		name   string
		broker *hpfeedstest.Running
		change func(*hpfeeds.Config)
		want   string // "": it works
	}{
		{"verified", good, func(c *hpfeeds.Config) { c.CAFile = ca.File }, ""},
		{"unverified", wrongName, func(c *hpfeeds.Config) { c.CheckCert = false }, ""},
		{"unknown authority", good, func(*hpfeeds.Config) {}, "an authority that we do not know (HPFEEDS_CA_FILE)"},
		{"another authority", good, func(c *hpfeeds.Config) { c.CAFile = stranger.File }, "an authority that we do not know"},
		{"wrong name", wrongName, func(c *hpfeeds.Config) { c.CAFile = ca.File }, "the broker's certificate is not for 127.0.0.1"},
		{"expired", expired, func(c *hpfeeds.Config) { c.CAFile = ca.File }, "has expired"},
		{"no TLS", plain, func(c *hpfeeds.Config) { c.CAFile = ca.File }, "does not speak TLS on this port (HPFEEDS_TLS, HPFEEDS_PORT)"},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg := test.broker.Config("writer", "geheim")
			cfg.TLS = true
			test.change(&cfg)
			c, err := hpfeeds.Dial(t.Context(), cfg, hpfeeds.Options{})
			if test.want != "" {
				if e := reasonOf(t, err); !e.Permanent || e.Reason != hpfeeds.ReasonTLS || !strings.Contains(e.Error(), test.want) {
					t.Fatalf("%+v", e)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Close() }()
			if err := c.Subscribe("fence"); err != nil {
				t.Fatal(err)
			}
			rig.Eventually(t, 10*time.Second, "the subscription", func() bool { return test.broker.Subscribers("fence") == 1 })
			payload := bytes.Repeat([]byte("0123456789abcdef"), 60000)
			if err := errors.Join(c.Publish("fence", payload), c.Flush()); err != nil {
				t.Fatal(err)
			}
			if m := receive(t, c); !bytes.Equal(m.Payload, payload) {
				t.Error("the payload has changed")
			}
			rig.Eventually(t, 10*time.Second, "all to be acknowledged", func() bool { n, err := c.Unsent(); return n == 0 && err == nil })
		})
	}
	// The other way round: the greeting never comes in the clear, and who waits for it gives up.
	cfg := good.Config("writer", "geheim")
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := hpfeeds.Dial(ctx, cfg, hpfeeds.Options{}); err == nil {
		t.Error("a login without TLS at a broker that wants it")
	}
}

// TestScripts: whatever a broker does, the client comes to an end in time, says why, and takes no memory for it.
func TestScripts(t *testing.T) {
	for name, want := range map[string]struct {
		reasons   []hpfeeds.Reason // "": none, it goes on
		permanent bool
		text      string
	}{
		"nonce-0":             {[]hpfeeds.Reason{hpfeeds.ReasonProtocol}, true, "an INFO without a nonce"},
		"nonce-1":             {},
		"nonce-3":             {},
		"nonce-5":             {},
		"nonce-20":            {},
		"info-neg":            {[]hpfeeds.Reason{hpfeeds.ReasonProtocol}, true, "an INFO of 4294967295 bytes"},
		"info-ml0":            {[]hpfeeds.Reason{hpfeeds.ReasonProtocol}, true, "claims to have 0 bytes"},
		"info-ml4":            {[]hpfeeds.Reason{hpfeeds.ReasonProtocol}, true, "claims to have 4 bytes"},
		"info-huge":           {[]hpfeeds.Reason{hpfeeds.ReasonProtocol}, true, "an INFO of 1073741824 bytes"},
		"info-name-overrun":   {[]hpfeeds.Reason{hpfeeds.ReasonProtocol}, true, "runs over"},
		"unknown-op":          {[]hpfeeds.Reason{hpfeeds.ReasonProtocol}, true, "unknown opcode 99"},
		"http":                {[]hpfeeds.Reason{hpfeeds.ReasonProtocol}, true, "does not speak hpfeeds"},
		"garbage":             {[]hpfeeds.Reason{hpfeeds.ReasonProtocol}, true, "does not speak hpfeeds"},
		"auth-error":          {[]hpfeeds.Reason{hpfeeds.ReasonAuth}, true, `ident or secret is wrong: the broker says "Authentication failed for x"`},
		"auth-error-keepopen": {[]hpfeeds.Reason{hpfeeds.ReasonAuth}, true, `"authfail"`},
		"auth-silent-close":   {[]hpfeeds.Reason{hpfeeds.ReasonHungUp}, false, "soon after the login, without a word"},
		"error-non-utf8":      {[]hpfeeds.Reason{hpfeeds.ReasonRefused}, false, "the broker says"},
		"chan-error":          {[]hpfeeds.Reason{hpfeeds.ReasonRights}, true, "the ident has no right to the channel"},
		"chan-error-keepopen": {[]hpfeeds.Reason{hpfeeds.ReasonRights}, true, "the ident has no right to the channel"},
		"oversize-error":      {[]hpfeeds.Reason{hpfeeds.ReasonRefused}, false, "Message too big"},
		"close-after-1":       {[]hpfeeds.Reason{hpfeeds.ReasonHungUp}, false, "closed the connection"},
		"rst-after-3":         {[]hpfeeds.Reason{hpfeeds.ReasonHungUp}, false, "the connection"},
		"close-mid-frame":     {[]hpfeeds.Reason{hpfeeds.ReasonHungUp}, false, "the connection"},
		"frame-4gib":          {[]hpfeeds.Reason{hpfeeds.ReasonProtocol}, false, "a PUBLISH of 4294967295 bytes"},
		"publish-1gib":        {[]hpfeeds.Reason{hpfeeds.ReasonProtocol}, false, "a PUBLISH of 1073741824 bytes"},
		"error-flood":         {[]hpfeeds.Reason{hpfeeds.ReasonRefused}, false, "the broker says"},
		"info-flood":          {[]hpfeeds.Reason{hpfeeds.ReasonProtocol}, false, "an INFO after the login"},
		"unsolicited-publish": {},
		"slow-read":           {},
	} {
		t.Run(name, func(t *testing.T) {
			script, broker := hpfeedstest.StartScript(t, name)
			memory := watchMemory(t)
			c, err := hpfeeds.Dial(t.Context(), broker.Config("writer", "geheim"), hpfeeds.Options{})
			if err == nil {
				defer func() { _ = c.Close() }()
				err = publishSome(t, c)
			}
			if len(want.reasons) == 0 {
				if err != nil {
					t.Errorf("it ended: %v", err)
				}
				if name == "unsolicited-publish" {
					rig.Eventually(t, 20*time.Second, "messages to be skipped", func() bool { return c.Skipped() > 1000 }) // 100 MiB
				} else {
					rig.Eventually(t, 20*time.Second, "the messages", func() bool { return script.Messages() == 10 || name == "slow-read" })
				}
			} else {
				e := reasonOf(t, err)
				if e.Reason != want.reasons[0] || e.Permanent != want.permanent || !strings.Contains(e.Error(), want.text) {
					t.Errorf("%s, permanent %v: %v", e.Reason, e.Permanent, e)
				}
				if len(e.Error()) > 1000 || hpfeeds.Sanitize(e.Error()) != e.Error() {
					t.Errorf("%q cannot be shown", e.Error())
				}
			}
			if grown := memory(); grown > 8<<20 {
				t.Errorf("it took %d bytes of memory", grown)
			}
		})
	}
}

// publishSome publishes ten messages one by one, then waits whether the connection ends.
func publishSome(t *testing.T, c *hpfeeds.Conn) error {
	t.Helper()
	for range 10 {
		if err := errors.Join(c.Publish("spam.mails", make([]byte, 1000)), c.Flush()); err != nil {
			return c.Err()
		}
	}
	select {
	case <-c.Done():
		return c.Err()
	case <-time.After(300 * time.Millisecond): // an end that does not come has no event
		return nil
	}
}

// watchMemory returns what tells by how much the heap has grown, at its largest.
func watchMemory(t *testing.T) func() uint64 {
	t.Helper()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	before, most := m.HeapAlloc, m.HeapAlloc
	stop := make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				most = max(most, m.HeapAlloc)
			}
		}
	})
	return func() uint64 {
		close(stop)
		wait.Wait()
		return most - before
	}
}

// TestUnsubscribe: what comes all the same is skipped.
func TestUnsubscribe(t *testing.T) {
	broker := hpfeedstest.Start(t, hpfeedstest.Config{Users: users()})
	in := subscriber(t, broker, "spam.mails", "spam.other")
	if err := in.Unsubscribe("spam.mails"); err != nil {
		t.Fatal(err)
	}
	rig.Eventually(t, 10*time.Second, "the subscription to end", func() bool { return broker.Subscribers("spam.mails") == 0 })
	out := connect(t, broker.Config("writer", "geheim"))
	if err := errors.Join(out.Publish("spam.mails", []byte("1")), out.Publish("spam.other", []byte("2")), out.Flush()); err != nil {
		t.Fatal(err)
	}
	if m := receive(t, in); string(m.Payload) != "2" {
		t.Errorf("%q came", m.Payload)
	}
}

// TestReceiveGivesUp: the end of the context is not that of the connection, and Close ends who waits.
func TestReceiveGivesUp(t *testing.T) {
	broker := hpfeedstest.Start(t, hpfeedstest.Config{Users: users()})
	in := subscriber(t, broker, "spam.mails")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := in.Receive(ctx); !errors.Is(err, context.Canceled) || in.Err() != nil {
		t.Errorf("%v, %v", err, in.Err())
	}
	waiting := make(chan error, 1)
	go func() { _, err := in.Receive(t.Context()); waiting <- err }()
	_ = in.Close()
	if e := reasonOf(t, <-waiting); e.Reason != hpfeeds.ReasonEnded {
		t.Errorf("%+v", e)
	}
}

// TestPublishAllocations: publishing takes no memory.
func TestPublishAllocations(t *testing.T) {
	_, broker := hpfeedstest.StartScript(t, "nonce-1")
	c := connect(t, broker.Config("writer", "x"))
	payload := make([]byte, 10<<10)
	if n := testing.AllocsPerRun(1000, func() {
		if err := c.Publish("spam.mails", payload); err != nil {
			t.Fatal(err)
		}
	}); n >= 1 {
		t.Errorf("%v allocations a message", n)
	}
}
