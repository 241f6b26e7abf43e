package amqp

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"spamtraps.internal/libs/rig"
	"spamtraps.internal/libs/secret"
)

// A confirm that never comes ends in an error, a clean connection, and one try at a time until one has passed.
func TestMissedConfirm(t *testing.T) {
	t.Parallel()
	broker := newPeer(t, func(c *peerConn, channel uint16, tag uint64) {
		if c.number > 0 || tag > 1 { // the first message of each channel of the first connection stays without
			c.ack(channel, tag)
		}
	})
	cfg := broker.settings()
	cfg.ConfirmTimeout = time.Second
	p := run(t, cfg)
	p.waitReady(testPatience)

	begun := time.Now()
	if err := p.Publish(t.Context(), message("a", 10)); reason(err) != ReasonNoConfirm {
		t.Fatalf("got %v", err)
	}
	if took := time.Since(begun); took < cfg.ConfirmTimeout || took > cfg.ConfirmTimeout+time.Second {
		t.Errorf("it took %v", took)
	}
	if err := p.Ready(); reason(err) == "" {
		t.Error("the publisher is ready though nothing has passed since")
	}
	rig.Eventually(t, 5*time.Second, "a second connection", func() bool { return broker.connections() == 2 })
	p.waitReady(5 * time.Second)
	if !strings.Contains(p.State().Text, "one try at a time") {
		t.Errorf("state: %s", p.State())
	}
	if err := p.Publish(t.Context(), message("a", 10)); err != nil {
		t.Fatal(err)
	}
	if !p.State().OK {
		t.Errorf("after a try has passed: %s", p.State())
	}
	if count, bytes := p.door.load(); count != 0 || bytes != 0 {
		t.Errorf("%d messages and %d bytes are still in flight", count, bytes)
	}
}

// A caller that leaves keeps its room in the window until the broker's word on its message has come.
func TestCallerThatLeavesKeepsItsRoom(t *testing.T) {
	t.Parallel()
	got := make(chan func(), 1)
	broker := newPeer(t, func(c *peerConn, channel uint16, tag uint64) {
		got <- func() { c.ack(channel, tag) }
	})
	p := run(t, broker.settings())
	p.waitReady(testPatience)
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() { left <- p.Publish(ctx, message("a", 10)) }()
	ack := <-got
	cancel()
	if err := <-left; !errors.Is(err, context.Canceled) || reason(err) != ReasonGaveUp {
		t.Fatalf("got %v", err)
	}
	if count, _ := p.door.load(); count != 1 {
		t.Fatalf("%d messages are in flight", count)
	}
	ack()
	rig.Eventually(t, 5*time.Second, "the room is free again", func() bool { count, _ := p.door.load(); return count == 0 })
}

// Each caller waits for the confirm of its own message, not for those before it.
func TestConfirmsOutOfOrder(t *testing.T) {
	t.Parallel()
	got := make(chan func(), 64)
	broker := newPeer(t, func(c *peerConn, channel uint16, n uint64) {
		got <- func() { c.ack(channel, n) }
	})
	p := run(t, broker.settings())
	p.waitReady(testPatience)
	const messages = 3 * lanes
	results := make(chan error, messages)
	for i := range messages {
		go func() { results <- p.Publish(t.Context(), message(fmt.Sprint(i), 10)) }()
	}
	var acks []func()
	for range messages {
		acks = append(acks, <-got)
	}
	for _, ack := range slices.Backward(acks) {
		ack()
		if err := <-results; err != nil {
			t.Fatal(err)
		}
	}
}

// An alarm fails what is in flight at once, and is not mistaken for missing confirms, however long it lasts; the connection
// survives it, and the room comes back when the broker confirms after all.
func TestAlarmKeepsTheConnection(t *testing.T) {
	t.Parallel()
	type order struct {
		c       *peerConn
		channel uint16
		tag     uint64
	}
	got := make(chan order, 8)
	broker := newPeer(t, func(c *peerConn, channel uint16, tag uint64) { got <- order{c, channel, tag} })
	cfg := broker.settings()
	cfg.ConfirmTimeout = time.Second
	p := run(t, cfg)
	p.waitReady(testPatience)

	results := make(chan error, 3)
	for i := range cap(results) {
		go func() { results <- p.Publish(t.Context(), message(fmt.Sprint(i), 10)) }()
	}
	var orders []order
	for range cap(results) {
		orders = append(orders, <-got)
	}
	begun := time.Now()
	orders[0].c.blocked("low on memory")
	for range cap(results) {
		if err := <-results; reason(err) != ReasonAlarm || !strings.Contains(err.Error(), "low on memory") {
			t.Errorf("got %v", err)
		}
	}
	if took := time.Since(begun); took > cfg.ConfirmTimeout/2 {
		t.Errorf("the callers had their answer after %v", took)
	}
	if err := p.Publish(t.Context(), message("a", 10)); reason(err) != ReasonAlarm {
		t.Errorf("during the alarm: %v", err)
	}
	rig.Eventually(t, 5*time.Second, "the alarm is older than a confirm may be", func() bool {
		return time.Since(begun) > 2*cfg.ConfirmTimeout
	})
	orders[0].c.unblocked()
	p.waitReady(testPatience)
	if count, _ := p.door.load(); count != len(orders) {
		t.Errorf("%d messages are in flight", count)
	}
	for _, o := range orders {
		o.c.ack(o.channel, o.tag)
	}
	rig.Eventually(t, 5*time.Second, "the room is free again", func() bool { count, _ := p.door.load(); return count == 0 })
	if n := broker.connections(); n != 1 {
		t.Errorf("%d connections", n)
	}
	if warnings := p.log.at("warn"); len(warnings) != 1 {
		t.Errorf("warnings: %v", warnings)
	}
}

// A broker that dies within a frame is a lost connection, and no more than that.
func TestHalfAFrame(t *testing.T) {
	t.Parallel()
	broker := newPeer(t, func(c *peerConn, channel uint16, tag uint64) {
		if c.number == 0 {
			_, _ = c.Write([]byte{1, 0, byte(channel), 0, 0, 0, 13, 0, 60}) // the beginning of an ack
			_ = c.Close()
			return
		}
		c.ack(channel, tag)
	})
	p := run(t, broker.settings())
	p.waitReady(testPatience)
	if err := p.Publish(t.Context(), message("a", 10)); reason(err) != ReasonDown {
		t.Fatalf("got %v", err)
	}
	p.waitReady(5 * time.Second)
	if err := p.Publish(t.Context(), message("a", 10)); err != nil {
		t.Fatal(err)
	}
}

// Headers that would not fit into the broker's frames would end the connection for everybody.
func TestBrokerWithSmallFrames(t *testing.T) {
	t.Parallel()
	broker := newPeer(t, nil)
	broker.frameMax = 4096
	refused(t, run(t, broker.settings()), "the broker's frame_max is 4096")
}

// With a client certificate and no password the broker learns who we are from the certificate.
func TestExternalLogin(t *testing.T) {
	t.Parallel()
	broker := newPeer(t, func(c *peerConn, channel uint16, tag uint64) { c.ack(channel, tag) })
	ca := rig.NewCA(t)
	serverCert, serverKey := ca.Issue(time.Now().Add(time.Hour), "127.0.0.1")
	cert, key := ca.Issue(time.Now().Add(time.Hour), "collector")
	front := newFront(t, broker.listener.Addr().String(), serverCert, serverKey, ca.File)
	cfg := Defaults()
	cfg.Host = []string{front}
	cfg.CAFile, cfg.CertFile, cfg.KeyFile = ca.File, cert, key
	cfg.Secret = secret.Secret{}
	p := run(t, cfg)
	p.waitReady(testPatience)
	broker.mu.Lock()
	defer broker.mu.Unlock()
	if broker.mechanisms[0] != "EXTERNAL" {
		t.Errorf("mechanism %s", broker.mechanisms[0])
	}
}

// A password in a file is read anew for each connection.
func TestSecretFileIsReadAgain(t *testing.T) {
	t.Parallel()
	b := rig.SharedBroker(t)
	path := filepath.Join(t.TempDir(), "password")
	cfg := Defaults()
	cfg.TLS = false
	cfg.Host = []string{fmt.Sprintf("%s:%d", b.Host, b.Port)}
	cfg.VHost, cfg.Ident, cfg.Secret = b.VHost, b.User, secret.FromFile(path)
	p := run(t, cfg)
	rig.Eventually(t, 5*time.Second, "the missing file shows", func() bool {
		return strings.Contains(p.State().Text, "no such file")
	})
	write(t, path, b.Password+"\n")
	p.waitReady(testPatience)
}
