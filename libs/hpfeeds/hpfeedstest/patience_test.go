package hpfeedstest

import (
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"spamtraps.internal/libs/hpfeeds"
)

// pipes is a listener whose connections lie in the test's own time.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	if conn, ok := <-p; ok {
		return conn, nil
	}
	return nil, net.ErrClosed
}

func (p pipes) Close() error   { close(p); return nil }
func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

// dial connects, and takes the broker's INFO.
func (p pipes) dial(t *testing.T) (net.Conn, []byte) {
	t.Helper()
	near, far := net.Pipe()
	p <- far
	in := hpfeeds.NewReader(near, 0)
	if _, err := in.Next(); err != nil {
		t.Fatal(err)
	}
	nonce, err := in.Body()
	if err != nil {
		t.Fatal(err)
	}
	return near, nonce
}

func (p pipes) login(t *testing.T, ident string) net.Conn {
	t.Helper()
	conn, nonce := p.dial(t)
	write(t, conn, hpfeeds.AppendAuth(nil, ident, nonce, users()[ident].Secret))
	return conn
}

func (p pipes) subscribe(t *testing.T) net.Conn {
	t.Helper()
	conn := p.login(t, "reader")
	write(t, conn, hpfeeds.AppendSubscribe(nil, "reader", "spam.mails"))
	return conn
}

func sendFrame(conn net.Conn, size int) error {
	_, err := conn.Write(append(hpfeeds.AppendPublish(nil, "writer", "spam.mails", size), make([]byte, size)...))
	return err
}

// serve runs a broker in a bubble of time.
func serve(t *testing.T, cfg Config, do func(t *testing.T, b *Broker, p pipes)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		cfg.Users = users()
		b, p := New(cfg), make(pipes)
		ended := make(chan error, 1)
		go func() { ended <- b.Serve(p) }()
		do(t, b, p)
		_ = b.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// A subscriber that takes nothing is cut when it has done so for as long as SlowLimit, though little waits for it.
func TestSubscriberThatTakesNothing(t *testing.T) {
	serve(t, Config{SlowLimit: time.Minute}, func(t *testing.T, b *Broker, p pipes) {
		t.Helper()
		stuck, out := p.subscribe(t), p.login(t, "writer")
		if err := sendFrame(out, 100); err != nil {
			t.Fatal(err)
		}
		time.Sleep(59 * time.Second)
		synctest.Wait()
		if s := b.Stats(); s.Cut != 0 || s.Subscribers != 1 {
			t.Errorf("after 59 s: %+v", s)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if s := b.Stats(); s.Cut != 1 || s.Subscribers != 0 {
			t.Errorf("after 61 s: %+v", s)
		}
		_, _ = stuck.Close(), out.Close()
	})
}

// A subscriber that always takes a little, and far less than comes, is cut when its queue has been full for as long as SlowLimit; the others get all.
func TestSubscriberThatTakesLittle(t *testing.T) {
	serve(t, Config{SlowLimit: time.Minute, QueueBytes: 1000}, func(t *testing.T, b *Broker, p pipes) {
		t.Helper()
		slow, good, out := p.subscribe(t), p.subscribe(t), p.login(t, "writer")
		go func() {
			for little := make([]byte, 10); ; time.Sleep(30 * time.Second) {
				if _, err := slow.Read(little); err != nil {
					return
				}
			}
		}()
		const messages, size = 3, 600
		got := make(chan error, 1)
		go func() {
			in := hpfeeds.NewReader(good, 0)
			for range messages {
				if _, err := in.Next(); err != nil {
					got <- err
					return
				}
			}
			got <- in.Skip()
		}()
		for range messages {
			if err := sendFrame(out, size); err != nil {
				t.Fatal(err)
			}
		}
		began := time.Now()
		if err := <-got; err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 2*time.Minute {
			t.Errorf("the good one had all after %s", took)
		}
		synctest.Wait()
		if s := b.Stats(); s.Cut != 1 || s.Subscribers != 1 {
			t.Errorf("%+v", s)
		}
		_, _, _ = slow.Close(), good.Close(), out.Close()
		time.Sleep(time.Minute) // the one who takes little sees the end
	})
}

// Who connects and does not log in does not stay.
func TestNoLogin(t *testing.T) {
	serve(t, Config{}, func(t *testing.T, b *Broker, p pipes) {
		t.Helper()
		conn, _ := p.dial(t)
		began := time.Now()
		if _, err := io.ReadAll(conn); err != nil || time.Since(began) != loginTime {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
		synctest.Wait()
		if n := b.Stats().Open; n != 0 {
			t.Errorf("%d connections are open", n)
		}
		_ = conn.Close()
	})
}

func write(t *testing.T, conn net.Conn, frame []byte) {
	t.Helper()
	if _, err := conn.Write(frame); err != nil {
		t.Fatal(err)
	}
}
