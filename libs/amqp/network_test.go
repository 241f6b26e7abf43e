package amqp

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"spamtraps.internal/libs/amqp/amqptest"
	"spamtraps.internal/libs/rig"
)

// behind returns settings for a broker that is reached through a proxy.
func behind(t testing.TB, b *rig.Broker) (Config, *rig.Proxy) {
	t.Helper()
	proxy := rig.NewProxy(t, net.JoinHostPort(b.Host, fmt.Sprint(b.Port)))
	cfg := settings(b.URLAt(proxy.Addr()))
	cfg.Heartbeat = 2 * time.Second
	return cfg, proxy
}

func TestBrokerAwayAtStart(t *testing.T) {
	t.Parallel()
	b := rig.SharedBroker(t)
	cfg, proxy := behind(t, b)
	proxy.Refuse()
	p := run(t, cfg)
	refused(t, p, "connection refused")
	if want := "amqp: cannot reach " + proxy.Addr(); !strings.HasPrefix(p.State().Text, want) {
		t.Errorf("state: %s", p.State())
	}
	proxy.Accept()
	p.waitReady(5 * time.Second)
	if err := p.Publish(t.Context(), message("a", 10)); err != nil {
		t.Fatal(err)
	}
	if p.log.at("info")[0].Message != "amqp: connected" || len(p.log.at("warn")) != 1 {
		t.Errorf("log:\n%s", p.log.text())
	}
}

// A network that swallows everything, with far more outstanding than the kernel's buffers hold: the place where the
// library alone hangs for ever. Every caller must have its answer within one and a half heartbeats and a little.
func TestFrozenNetwork(t *testing.T) {
	t.Parallel()
	b := rig.SharedBroker(t)
	inbox := amqptest.NewInbox(t, b.URL(), "spam", "spam.mails")
	cfg, proxy := behind(t, b)
	p := run(t, cfg)
	p.waitReady(testPatience)

	proxy.Freeze()
	frozen := time.Now()
	const callers = 60
	results := make(chan error, callers)
	for i := range callers {
		go func() { results <- p.Publish(context.Background(), message(fmt.Sprint(i), 512<<10)) }()
	}
	for range callers {
		if err := <-results; reason(err) != ReasonDown {
			t.Errorf("got %v", err)
		}
	}
	if took := time.Since(frozen); took > silenceLimit(cfg.Heartbeat)+2*time.Second {
		t.Errorf("the last caller had its answer after %v", took)
	}
	if count, bytes := p.door.load(); count != 0 || bytes != 0 {
		rig.Eventually(t, 5*time.Second, "the window is empty", func() bool { count, _ := p.door.load(); return count == 0 })
	}

	proxy.Thaw()
	p.waitReady(5 * time.Second)
	c := newCrowd(p, 10, 1000)
	c.more(t, 100, 5*time.Second)
	c.end()
	account(t, inbox.Copies(t), c, cfg.InFlight)
}

// While nothing moves, a stop must not wait for it.
func TestStopWithFrozenNetwork(t *testing.T) {
	t.Parallel()
	b := rig.SharedBroker(t)
	for _, when := range []string{"handshake", "open", "in flight"} {
		t.Run(when, func(t *testing.T) {
			cfg, proxy := behind(t, b)
			cfg.Heartbeat = time.Minute
			if when == "handshake" {
				proxy.Freeze()
			}
			p := run(t, cfg, func(p *Publisher) { p.stopGrace = time.Second })
			result := make(chan error, 1)
			if when == "handshake" {
				rig.Eventually(t, 5*time.Second, "a connection is begun", func() bool { return proxy.Accepted() > 0 })
			} else {
				p.waitReady(testPatience)
				proxy.Freeze()
			}
			if when == "in flight" {
				go func() { result <- p.Publish(context.Background(), message("a", 16<<20)) }()
				rig.Eventually(t, 5*time.Second, "a message is in flight", func() bool { n, _ := p.door.load(); return n == 1 })
			} else {
				result <- nil
			}
			begun := time.Now()
			p.stop()
			if took := time.Since(begun); took > 4*time.Second {
				t.Errorf("the stop took %v", took)
			}
			if err := <-result; when == "in flight" && reason(err) == "" {
				t.Errorf("got %v", err)
			}
			if err := p.Publish(t.Context(), message("b", 10)); reason(err) != ReasonNotRunning {
				t.Errorf("after the stop: %v", err)
			}
		})
	}
}

// When Publish has returned, whatever its end, nobody reads the message any more: its owner may use the memory again. The
// race detector sees it if not.
func TestBodyIsItsOwnersAgain(t *testing.T) {
	t.Parallel()
	b := rig.SharedBroker(t)
	inbox := amqptest.NewInbox(t, b.URL(), "spam", "spam.mails")
	cfg, proxy := behind(t, b)
	cfg.Heartbeat = testPatience
	p := run(t, cfg)
	p.waitReady(testPatience)
	proxy.Freeze()
	ctx, cancel := context.WithCancel(t.Context())
	m := message("a", 16<<20)
	sum := sha256.Sum256(m.Body)
	result := make(chan error, 1)
	go func() {
		err := p.Publish(ctx, m)
		clear(m.Body)
		result <- err
	}()
	rig.Eventually(t, 5*time.Second, "the message is being written", func() bool { n, _ := p.door.load(); return n == 1 })
	cancel()
	proxy.Thaw()
	if err := <-result; reason(err) != ReasonGaveUp {
		t.Errorf("got %v", err)
	}
	rig.Eventually(t, testPatience, "the broker has it", func() bool { n, _ := p.door.load(); return n == 0 })
	if got := inbox.Messages(t); len(got) != 1 || sha256.Sum256(got[0].Body) != sum {
		t.Errorf("%d messages arrived, or with other bytes", len(got))
	}
}

// A normal stop waits for the confirms of what is in flight.
func TestStopWithMailInFlight(t *testing.T) {
	t.Parallel()
	b := rig.SharedBroker(t)
	cfg, proxy := behind(t, b)
	p := run(t, cfg)
	p.waitReady(testPatience)
	proxy.Delay(200 * time.Millisecond)
	results := make(chan error, 20)
	for i := range cap(results) {
		go func() { results <- p.Publish(context.Background(), message(fmt.Sprint(i), 1000)) }()
	}
	rig.Eventually(t, 5*time.Second, "all is in flight", func() bool { n, _ := p.door.load(); return n == cap(results) })
	p.stop()
	for range cap(results) {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}

func TestSeveralHosts(t *testing.T) {
	t.Parallel()
	b := rig.SharedBroker(t)
	dead, dying := rig.NewProxy(t, "127.0.0.1:1"), rig.NewProxy(t, net.JoinHostPort(b.Host, fmt.Sprint(b.Port)))
	dead.Refuse()
	cfg := Defaults()
	cfg.TLS = false
	cfg.Host = []string{dead.Addr(), dying.Addr(), b.Host}
	cfg.Port, cfg.VHost, cfg.Ident = b.Port, b.VHost, b.User
	_ = cfg.Secret.UnmarshalText([]byte(b.Password))
	p := run(t, cfg)
	p.waitReady(5 * time.Second)
	if !strings.Contains(p.log.text(), dying.Addr()) {
		t.Errorf("the second host is not the one that is connected:\n%s", p.log.text())
	}
	dying.Refuse()
	dying.Reset()
	rig.Eventually(t, 5*time.Second, "the third host", func() bool { return p.connections() == 2 })
	p.waitReady(5 * time.Second)
	if err := p.Publish(t.Context(), message("a", 10)); err != nil {
		t.Fatal(err)
	}
}

func TestAllHostsDead(t *testing.T) {
	t.Parallel()
	one, two := rig.NewProxy(t, "127.0.0.1:1"), rig.NewProxy(t, "127.0.0.1:1")
	one.Refuse()
	two.Refuse()
	cfg := Defaults()
	cfg.TLS = false
	cfg.Host = []string{one.Addr(), two.Addr()}
	p := run(t, cfg)
	refused(t, p, fmt.Sprintf("cannot reach %s: connection refused; cannot reach %s: connection refused", one.Addr(), two.Addr()))
}

// A name that does not resolve yet is a broker that is away, and no more.
func TestNameThatDoesNotResolveYet(t *testing.T) {
	b := rig.SharedBroker(t)
	names := newNames(t)
	cfg := Defaults()
	cfg.TLS = false
	cfg.Host, cfg.Port, cfg.VHost, cfg.Ident = []string{"rabbitmq.test"}, b.Port, b.VHost, b.User
	_ = cfg.Secret.UnmarshalText([]byte(b.Password))
	p := run(t, cfg)
	refused(t, p, "the name does not resolve")
	names.known.Store(true)
	p.waitReady(5 * time.Second)
}

// names is a name server that knows one address for every name, from some time on.
type names struct{ known atomic.Bool }

// newNames makes the name server the one of this process until the test ends.
func newNames(t *testing.T) *names {
	t.Helper()
	n := &names{}
	conn, err := (&net.ListenConfig{}).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { n.serve(conn) })
	system := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
	t.Cleanup(func() {
		net.DefaultResolver = system
		_ = conn.Close()
		wg.Wait()
	})
	return n
}

// serve answers questions by their own bytes with the fields of an answer changed (RFC 1035 §4.1).
func (n *names) serve(conn net.PacketConn) {
	packet := make([]byte, 512)
	for {
		size, from, err := conn.ReadFrom(packet)
		if err != nil {
			return
		}
		end := 12
		for packet[end] != 0 {
			end += 1 + int(packet[end])
		}
		end += 5 // the root, type and class
		if end > size {
			return
		}
		answer := append([]byte(nil), packet[:end]...)
		isA := binary.BigEndian.Uint16(answer[end-4:]) == 1
		binary.BigEndian.PutUint16(answer[2:], 0x8180) // a response, recursion available
		clear(answer[6:12])
		switch {
		case !n.known.Load():
			answer[3] |= 3 // no such name
		case isA:
			answer[7] = 1
			answer = append(answer, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 127, 0, 0, 1)
		}
		_, _ = conn.WriteTo(answer, from)
	}
}

// What AMQP cannot carry is refused before it is sent, because it would end the connection for everybody.
func TestMessagesThatAMQPCannotCarry(t *testing.T) {
	t.Parallel()
	b := rig.SharedBroker(t)
	cfg, _ := behind(t, b)
	cfg.MaxMessageBytes = 1000
	p := run(t, cfg)
	p.waitReady(testPatience)
	c := newCrowd(p, 5, 100)
	for _, row := range badMessages() {
		err := p.Publish(t.Context(), row.message)
		var failure *Error
		if !errors.As(err, &failure) || !failure.Permanent || !strings.Contains(err.Error(), row.says) {
			t.Errorf("%s: %v", row.name, err)
		}
	}
	c.more(t, 20, 10*time.Second)
	c.end()
	if len(c.failures) > 0 || p.connections() != 1 {
		t.Errorf("others were disturbed: %v\n%s", c.failures, p.log.text())
	}
}
