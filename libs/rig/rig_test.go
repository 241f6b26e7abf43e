package rig_test

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"testing"
	"time"

	"spamtraps.internal/libs/rig"
)

func TestSharedBrokerGivesEachTestAVHost(t *testing.T) {
	one, other := rig.SharedBroker(t), rig.SharedBroker(t)
	if one.VHost == other.VHost {
		t.Fatalf("both got the vhost %s", one.VHost)
	}
	one.API(http.MethodPut, "/api/queues/"+url.PathEscape(one.VHost)+"/q", map[string]any{"durable": true}, nil)
	var queues []struct{ Name string }
	other.API(http.MethodGet, "/api/queues/"+url.PathEscape(other.VHost), nil, &queues)
	if len(queues) != 0 {
		t.Errorf("a queue of one vhost shows in the other: %v", queues)
	}
}

// The hurts that other tests lean on: each must hurt, and each must be undone by its twin.
func TestOwnBrokerCanBeHurt(t *testing.T) {
	ca := rig.NewCA(t)
	cert, key := ca.Issue(time.Now().Add(time.Hour), "127.0.0.1")
	b := rig.OwnBroker(t, rig.WithTLS(ca.File, cert, key))
	answers := func() bool {
		c, err := dial(t, net.JoinHostPort(b.Host, strconv.Itoa(b.Port)))
		if err != nil {
			return false
		}
		defer func() { _ = c.Close() }()
		_ = c.SetDeadline(time.Now().Add(time.Second))
		_, _ = io.WriteString(c, "AMQP\x00\x00\x09\x01")
		_, err = io.ReadFull(c, make([]byte, 8))
		return err == nil
	}
	if !answers() {
		t.Fatal("the broker does not answer after its start")
	}
	for _, hurt := range []struct {
		name     string
		do, undo func()
	}{
		{"pause", b.Pause, b.Unpause},
		{"partition", b.Partition, b.Rejoin},
		{"kill", b.Kill, b.Start},
	} {
		hurt.do()
		if answers() {
			t.Errorf("%s: the broker still answers", hurt.name)
		}
		hurt.undo()
		rig.Eventually(t, time.Minute, "the broker answers after the end of "+hurt.name, answers)
	}
	if b.TLSPort() == b.Port {
		t.Error("TLS and plain AMQP share a port")
	}
}

func TestProxyFreezesResetsAndRefuses(t *testing.T) {
	echo, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = echo.Close() })
	go func() {
		for {
			c, err := echo.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); _ = c.Close() }()
		}
	}()
	p := rig.NewProxy(t, echo.Addr().String())
	c, err := dial(t, p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	roundTrip := func(limit time.Duration) error {
		_ = c.SetDeadline(time.Now().Add(limit))
		if _, err := c.Write([]byte("ping")); err != nil {
			return err
		}
		got := make([]byte, 4)
		if _, err := io.ReadFull(c, got); err != nil {
			return err
		}
		if !bytes.Equal(got, []byte("ping")) {
			t.Errorf("got %q", got)
		}
		return nil
	}
	if err := roundTrip(time.Minute); err != nil {
		t.Fatal(err)
	}
	p.Freeze()
	if err := roundTrip(50 * time.Millisecond); err == nil {
		t.Error("a frozen proxy forwards")
	}
	p.Thaw()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
		t.Errorf("what piled up does not come after the thaw: %v", err)
	}
	p.Refuse()
	if _, err := dial(t, p.Addr()); err == nil {
		t.Error("a refusing proxy takes a connection")
	}
	if err := roundTrip(time.Minute); err != nil {
		t.Errorf("refusing new connections broke an old one: %v", err)
	}
	p.Accept()
	p.Reset()
	if err := roundTrip(time.Minute); err == nil {
		t.Error("a reset connection goes on")
	}
}

func dial(t *testing.T, address string) (net.Conn, error) {
	t.Helper()
	return (&net.Dialer{Timeout: time.Second}).DialContext(t.Context(), "tcp", address)
}
