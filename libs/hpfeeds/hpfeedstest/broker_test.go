package hpfeedstest

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"spamtraps.internal/libs/hpfeeds"
	"spamtraps.internal/libs/rig"
)

func TestMain(m *testing.M) {
	Main()
	goleak.VerifyTestMain(m)
}

func users() map[string]User {
	return map[string]User{
		"writer": {Secret: "geheim", Publish: []string{"spam.mails", "other.channel", "fence"}, Subscribe: []string{"spam.mails", "fence"}},
		"reader": {Secret: "sécret", Subscribe: []string{"*"}},
	}
}

func connect(t testing.TB, cfg hpfeeds.Config) *hpfeeds.Conn {
	t.Helper()
	c, err := hpfeeds.Dial(t.Context(), cfg, hpfeeds.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func publish(t testing.TB, c *hpfeeds.Conn, channel string, payload []byte) {
	t.Helper()
	if err := errors.Join(c.Publish(channel, payload), c.Flush()); err != nil {
		t.Fatal(err)
	}
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

// TestReferenceClient replays what the reference client sends, byte for byte, and looks what comes of it.
func TestReferenceClient(t *testing.T) {
	raw, err := os.ReadFile("../testdata/reference.txt")
	if err != nil {
		t.Fatal(err)
	}
	broker := Start(t, Config{Users: users(), nonce: func() []byte { return []byte{0x00, 0xff, 0x7e, 0x81} }})
	witness := connect(t, broker.Config("reader", "sécret"))
	if err := witness.Subscribe("spam.mails", "other.channel"); err != nil {
		t.Fatal(err)
	}
	rig.Eventually(t, 10*time.Second, "the witness", func() bool { return broker.Stats().Subscribers == 2 })
	var (
		conns = make(map[string]net.Conn)
		info  []byte
		calls int
	)
	for line := range strings.Lines(string(raw)) {
		parts := strings.Split(strings.TrimSpace(line), "\t")
		if strings.HasPrefix(line, "#") {
			continue
		}
		frame, err := hex.DecodeString(parts[2])
		if err != nil {
			t.Fatal(err)
		}
		words := append(strings.Split(parts[1], " "), "", "")
		if parts[0] == "server" {
			if words[0] == "info" {
				info = frame
			}
			continue
		}
		if words[0] == "login" {
			conn, err := rawDial(t, broker.Port)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
			conns[words[1]] = conn
		}
		before := broker.Stats()
		if _, err := conns[words[1]].Write(frame); err != nil {
			t.Fatal(err)
		}
		calls++
		switch words[0] {
		case "login":
			rig.Eventually(t, 10*time.Second, parts[1], func() bool { return broker.Stats().Connections == before.Connections+1 })
		case "publish":
			payload, _ := hex.DecodeString(words[3])
			if m := receive(t, witness); m.Ident != words[1] || m.Channel != words[2] || !bytes.Equal(m.Payload, payload) {
				t.Errorf("%s came out as %+v", parts[1], m)
			}
		case "subscribe":
			rig.Eventually(t, 10*time.Second, parts[1], func() bool { return broker.Stats().Subscribers == before.Subscribers+1 })
		case "unsubscribe":
			rig.Eventually(t, 10*time.Second, parts[1], func() bool { return broker.Stats().Subscribers == before.Subscribers-1 })
		}
	}
	if calls != 9 || broker.Stats().Refused != 0 {
		t.Errorf("%d calls, %+v", calls, broker.Stats())
	}
	greeted := make([]byte, len(info))
	if _, err := io.ReadFull(conns["writer"], greeted); err != nil || !bytes.Equal(greeted, info) {
		t.Errorf("the greeting is %x, the reference's %x", greeted, info)
	}
}

// TestReferenceCalls: for the same calls our client sends the reference client's bytes.
func TestReferenceCalls(t *testing.T) {
	raw, err := os.ReadFile("../testdata/reference.txt")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]byte{}
	calls := map[string][]string{}
	for line := range strings.Lines(string(raw)) {
		parts := strings.Split(strings.TrimSpace(line), "\t")
		if strings.HasPrefix(line, "#") || parts[0] != "client" {
			continue
		}
		frame, _ := hex.DecodeString(parts[2])
		ident := strings.Split(parts[1], " ")[1]
		want[ident] = append(want[ident], frame...)
		calls[ident] = append(calls[ident], parts[1])
	}
	for ident, calls := range calls {
		ours, theirs := net.Pipe()
		got := make(chan []byte)
		go func() {
			_, _ = theirs.Write(hpfeeds.AppendInfo(nil, "hpfeeds", []byte{0x00, 0xff, 0x7e, 0x81}))
			all, _ := io.ReadAll(theirs)
			got <- all
		}()
		cfg := configFor(1, ident, users()[ident].Secret, nil)
		c, err := hpfeeds.Dial(t.Context(), cfg, hpfeeds.Options{Dial: func(context.Context, string, string) (net.Conn, error) { return ours, nil }})
		if err != nil {
			t.Fatal(err)
		}
		for _, call := range calls[1:] {
			words := append(strings.Split(call, " "), "")
			switch words[0] {
			case "publish":
				payload, _ := hex.DecodeString(words[3])
				publish(t, c, words[2], payload)
			case "subscribe":
				err = c.Subscribe(words[2])
			case "unsubscribe":
				err = c.Unsubscribe(words[2])
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		_ = c.Close()
		if sent := <-got; !bytes.Equal(sent, want[ident]) {
			t.Errorf("%s sent %x, the reference %x", ident, sent, want[ident])
		}
	}
}

// TestManners: how brokers differ, as a client sees it.
func TestManners(t *testing.T) {
	for _, test := range []struct {
		name       string
		manners    Manners
		send       []byte
		answer     string // of the ERROR; "": none
		stays      bool
		thenCloses bool // at the next frame
	}{
		{"Python, foreign channel", Python, mail("writer", "x", 3), "Authkey not allowed to pub here. ident=writer, chan=x", false, false},
		{"Python, foreign ident", Python, mail("other", "spam.mails", 3), "Invalid authkey in message, ident=other", false, false},
		{"Python, empty", Python, mail("writer", "spam.mails", 0), "", true, false},
		{"Python, the largest", Python, mail("writer", "spam.mails", 1048558), "", true, false},
		{"Python, one byte more", Python, mail("writer", "spam.mails", 1048559), "", false, false},
		{"Tentacool, foreign channel", Tentacool, mail("writer", "x", 3), "accessfail", true, true},
		{"Tentacool, empty", Tentacool, mail("writer", "spam.mails", 0), "", false, false},
		{"Tentacool, unsubscribe", Tentacool, hpfeeds.AppendUnsubscribe(nil, "writer", "spam.mails"), "", false, false},
		{"Tentacool, 2 MiB", Tentacool, mail("writer", "spam.mails", 2<<20), "", true, false},
		{"HPFBroker, foreign channel", HPFBroker, mail("writer", "x", 3), "Authkey not allowed to pub here. ident=writer, chan=x", true, false},
		{"HPFBroker, empty", HPFBroker, mail("writer", "spam.mails", 0), "Empty payload", true, false},
		{"HPFBroker, 11 MiB", HPFBroker, mail("writer", "spam.mails", 11<<20), "", true, false},
		{"INFO from a client", Python, hpfeeds.AppendInfo(nil, "x", []byte{1}), "", false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			broker := Start(t, Config{Users: users(), Manners: test.manners})
			conn, in := rawLogin(t, broker)
			_, _ = conn.Write(test.send) // the broker may close while we write
			if test.answer != "" {
				f, err := in.Next()
				if err != nil || f.Op != hpfeeds.OpError {
					t.Fatalf("%+v, %v", f, err)
				}
				if text, err := in.Body(); err != nil || string(text) != test.answer {
					t.Fatalf("%q, %v", text, err)
				}
			}
			// A subscription shows whether the connection is still there, and that all before it was handled.
			_, _ = conn.Write(hpfeeds.AppendSubscribe(nil, "writer", "fence"))
			_, _ = conn.Write(mail("writer", "fence", 10))
			if !test.stays || test.thenCloses {
				if f, err := in.Next(); err == nil {
					t.Fatalf("it goes on, with %+v", f)
				}
				return
			}
			if test.manners == Tentacool { // no echo
				rig.Eventually(t, 10*time.Second, "the message", func() bool { return broker.Stats().Unheard > 0 })
				return
			}
			if f, err := in.Next(); err != nil || f.Op != hpfeeds.OpPublish || f.Channel != "fence" || f.Size != 10 {
				t.Fatalf("%+v, %v", f, err)
			}
		})
	}
}

func mail(ident, channel string, size int) []byte {
	return append(hpfeeds.AppendPublish(nil, ident, channel, size), make([]byte, size)...)
}

func rawDial(t *testing.T, port int) (net.Conn, error) {
	t.Helper()
	return (&net.Dialer{}).DialContext(t.Context(), "tcp", fmt.Sprintf("127.0.0.1:%d", port))
}

// rawLogin logs in as the writer.
func rawLogin(t *testing.T, broker *Running) (net.Conn, *hpfeeds.Reader) {
	t.Helper()
	conn, err := rawDial(t, broker.Port)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	in := hpfeeds.NewReader(conn, 64<<20)
	if f, err := in.Next(); err != nil || f.Op != hpfeeds.OpInfo || f.Name != "hpfeeds" || f.Size != 4 {
		t.Fatalf("%+v, %v", f, err)
	}
	nonce, err := in.Body()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(hpfeeds.AppendAuth(nil, "writer", nonce, "geheim")); err != nil {
		t.Fatal(err)
	}
	return conn, in
}

// TestFirstFrame: nothing but AUTH may be said first.
func TestFirstFrame(t *testing.T) {
	broker := Start(t, Config{Users: users()})
	conn, err := rawDial(t, broker.Port)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_, _ = conn.Write(mail("writer", "spam.mails", 1))
	in := hpfeeds.NewReader(conn, 0)
	_, _ = in.Next()
	if f, err := in.Next(); err != nil || f.Op != hpfeeds.OpError {
		t.Fatalf("%+v, %v", f, err)
	}
	if s := broker.Stats(); s.Published != 0 {
		t.Errorf("%+v", s)
	}
}

// TestHold: a publisher waits for the subscribers, and is let go when it leaves.
func TestHold(t *testing.T) {
	broker := Start(t, Config{Users: users(), Hold: map[string]int{"spam.mails": 2}})
	early := connect(t, broker.Config("writer", "geheim"))
	publish(t, early, "spam.mails", []byte("nobody waits for this"))
	leaver := connect(t, broker.Config("writer", "geheim"))
	publish(t, leaver, "spam.mails", []byte("gone"))
	_ = leaver.Close()
	rig.Eventually(t, 10*time.Second, "the leaver to be noticed", func() bool { return broker.Stats().Open == 1 })
	one := connect(t, broker.Config("reader", "sécret"))
	if err := one.Subscribe("spam.mails"); err != nil {
		t.Fatal(err)
	}
	rig.Eventually(t, 10*time.Second, "the first subscriber", func() bool { return broker.Subscribers("spam.mails") == 1 })
	if s := broker.Stats(); s.Published != 0 {
		t.Fatalf("taken with one subscriber of two: %+v", s)
	}
	two := connect(t, broker.Config("reader", "sécret"))
	if err := two.Subscribe("spam.mails"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*hpfeeds.Conn{one, two} {
		if m := receive(t, c); string(m.Payload) != "nobody waits for this" {
			t.Errorf("%q came", m.Payload)
		}
	}
	_ = two.Close()
	rig.Eventually(t, 10*time.Second, "the second to be gone", func() bool { return broker.Subscribers("spam.mails") == 1 })
	publish(t, early, "spam.mails", []byte("held again"))
	publish(t, early, "other.channel", nil)
	three := connect(t, broker.Config("reader", "sécret"))
	if err := three.Subscribe("spam.mails"); err != nil {
		t.Fatal(err)
	}
	if m := receive(t, three); string(m.Payload) != "held again" {
		t.Errorf("%q came", m.Payload)
	}
}

// TestExactKill: what an Exact broker has let a fence's token through for reaches the subscriber, although the broker is killed.
func TestExactKill(t *testing.T) {
	broker := StartProcess(t, Config{Users: users(), Exact: true, Hold: map[string]int{"spam.mails": 1}})
	for round := range 5 {
		if round > 0 {
			broker.Start()
		}
		in := connect(t, broker.Config("reader", "sécret"))
		if err := in.Subscribe("spam.mails"); err != nil {
			t.Fatal(err)
		}
		fence := connect(t, broker.Config("writer", "geheim"))
		if err := fence.Subscribe("fence"); err != nil {
			t.Fatal(err)
		}
		out := connect(t, broker.Config("writer", "geheim"))
		// The subscription of the fence is there when a token comes back.
		tokens := make(chan string, 1000)
		go func() {
			for {
				m, err := fence.Receive(context.Background())
				if err != nil {
					close(tokens)
					return
				}
				tokens <- string(m.Payload)
			}
		}()
		rig.Eventually(t, 10*time.Second, "the fence", func() bool {
			publish(t, out, "fence", []byte("0"))
			select {
			case <-tokens:
				return true
			case <-time.After(10 * time.Millisecond):
				return false
			}
		})
		received := make(chan int)
		go func() { // a slow one, so that the kernels hold some
			n := 0
			for {
				if _, err := in.Receive(context.Background()); err != nil {
					received <- n
					return
				}
				n++
				time.Sleep(20 * time.Microsecond)
			}
		}()
		proved := 0
		for sent := 0; proved < 1000; {
			for range 100 {
				if err := out.Publish("spam.mails", make([]byte, 2000)); err != nil {
					t.Fatal(err)
				}
				sent++
			}
			publish(t, out, "fence", fmt.Appendf(nil, "%d", sent))
			for proved < sent {
				_, _ = fmt.Sscan(<-tokens, &proved)
			}
		}
		broker.Kill()
		if n := <-received; n < proved {
			t.Errorf("round %d: %d messages received, and %d proved", round, n, proved)
		}
	}
}

// TestSlowSubscriber: one that does not read holds the others up for a while, then it is cut; nothing is held for it without end.
func TestSlowSubscriber(t *testing.T) {
	broker := Start(t, Config{Users: users(), QueueBytes: 1 << 20, SlowLimit: 500 * time.Millisecond})
	stuck, _ := rawLogin(t, broker)
	if _, err := stuck.Write(hpfeeds.AppendSubscribe(nil, "writer", "spam.mails")); err != nil {
		t.Fatal(err)
	}
	good := connect(t, broker.Config("reader", "sécret"))
	if err := good.Subscribe("spam.mails"); err != nil {
		t.Fatal(err)
	}
	rig.Eventually(t, 10*time.Second, "both subscribers", func() bool { return broker.Subscribers("spam.mails") == 2 })
	out := connect(t, broker.Config("writer", "geheim"))
	sent := make(chan error, 1)
	const messages = 200 // of 100 KiB
	go func() {
		for range messages {
			if err := errors.Join(out.Publish("spam.mails", make([]byte, 100<<10)), out.Flush()); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	for range messages {
		_ = receive(t, good)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	if s := broker.Stats(); s.Cut != 1 || s.Subscribers != 1 {
		t.Errorf("%+v", s)
	}
}

// TestProcess: a stopped process neither greets nor reads, and goes on afterwards.
func TestProcess(t *testing.T) {
	broker := StartProcess(t, Config{Users: users()})
	in, out := connect(t, broker.Config("reader", "sécret")), connect(t, broker.Config("writer", "geheim"))
	if err := in.Subscribe("spam.mails"); err != nil {
		t.Fatal(err)
	}
	broker.Signal(syscall.SIGSTOP)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if c, err := hpfeeds.Dial(ctx, broker.Config("reader", "sécret"), hpfeeds.Options{}); err == nil {
		_ = c.Close()
		t.Error("a stopped process greets")
	}
	broker.Signal(syscall.SIGCONT)
	for { // until the subscription, which nothing confirms, is there
		publish(t, out, "spam.mails", []byte("x"))
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		_, err := in.Receive(ctx)
		cancel()
		if err == nil {
			break
		}
	}
	broker.Kill()
	<-out.Done()
	if broker.greets() {
		t.Error("a killed process greets")
	}
}

func TestTooManyConnections(t *testing.T) {
	broker := Start(t, Config{Users: users()})
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	for range maxConnections {
		c, err := rawDial(t, broker.Port)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	rig.Eventually(t, 20*time.Second, "all connections", func() bool { return broker.Stats().Open == maxConnections })
	if _, err := hpfeeds.Dial(t.Context(), broker.Config("writer", "geheim"), hpfeeds.Options{}); err == nil {
		t.Error("one more was let in")
	}
}

func TestScriptNames(t *testing.T) {
	if _, err := NewScript("no-such"); err == nil || !strings.Contains(err.Error(), "nonce-20") {
		t.Error(err)
	}
}
