package wire_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"spamtraps.internal/imap-collector/internal/imaptest"
	"spamtraps.internal/imap-collector/internal/wire"
)

// ends are both ends of a guarded connection.
type ends struct {
	*wire.Conn
	server net.Conn
}

func guarded(t *testing.T, greeting string) ends {
	t.Helper()
	network := imaptest.NewNet()
	accepted := make(chan net.Conn, 1)
	go func() {
		c, _ := network.Accept()
		accepted <- c
	}()
	conn, err := network.Dial(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	return ends{Conn: wire.New(conn, conn, wire.Defaults(1<<20), greeting, nil), server: <-accepted}
}

func (e ends) say(t *testing.T, text string) {
	t.Helper()
	if _, err := io.WriteString(e.server, text); err != nil {
		t.Fatal(err)
	}
}

// fails reads until an error, and returns it and how long that took.
func (e ends) fails(t *testing.T) (*wire.Error, time.Duration) {
	t.Helper()
	from := time.Now()
	_, err := io.Copy(io.Discard, e.Conn)
	var broken *wire.Error
	if !errors.As(err, &broken) {
		t.Fatalf("got %v", err)
	}
	if again, err := e.Read(make([]byte, 10)); again != 0 || !errors.Is(err, broken) {
		t.Errorf("the next read: %d, %v", again, err)
	}
	if _, err := e.Write([]byte("x")); !errors.Is(err, broken) {
		t.Errorf("the next write: %v", err)
	}
	if e.Err() != broken {
		t.Errorf("Err: %v", e.Err())
	}
	return broken, time.Since(from)
}

func TestSilentServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := guarded(t, "")
		_ = e.SetReadDeadline(time.Time{}) // as go-imap does
		err, took := e.fails(t)
		if err.Kind != wire.Silent || took != time.Minute {
			t.Errorf("%v after %s", err, took)
		}
	})
}

// A server that owes nothing may be silent, and what it has said in time may be read later.
func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := guarded(t, "* OK\r\n")
		e.Rest()
		go func() {
			time.Sleep(5 * time.Hour)
			e.say(t, "* 3 EXISTS\r\n")
		}()
		buffer := make([]byte, 100)
		if n, err := e.Read(buffer); err != nil || string(buffer[:n]) != "* OK\r\n" {
			t.Fatalf("%q, %v", buffer[:n], err)
		}
		if n, err := e.Read(buffer); err != nil || string(buffer[:n]) != "* 3 EXISTS\r\n" {
			t.Fatalf("%q, %v", buffer[:n], err)
		}
		e.Await(0, 0)
		e.say(t, "T1 OK\r\n")
		time.Sleep(119 * time.Second) // the machine is busy
		if n, err := e.Read(buffer); err != nil || string(buffer[:n]) != "T1 OK\r\n" {
			t.Fatalf("%q, %v", buffer[:n], err)
		}
		e.Idle(30 * time.Minute)
		err, took := e.fails(t)
		if err.Kind != wire.Silent || took != 30*time.Minute {
			t.Errorf("%v after %s", err, took)
		}
	})
}

// When nobody reads what is owed, no deadline runs: that is our own fault, and ends the connection all the same.
func TestNobodyReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := guarded(t, "* OK\r\n")
		from := time.Now()
		e.Await(0, 0)
		if n, err := e.Read(make([]byte, 100)); err != nil {
			t.Fatalf("%d, %v", n, err)
		}
		select {
		case <-e.Ended():
		case <-time.After(time.Hour):
		}
		if err, took := e.Err(), time.Since(from); err == nil || err.Kind != wire.Stuck || took != 2*time.Minute {
			t.Errorf("%v after %s", err, took)
		}
	})
}

// A read that is under way when the patience changes goes by the new one.
func TestPatienceChangesUnderARead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := guarded(t, "")
		go func() {
			time.Sleep(50 * time.Second)
			e.Rest()
			time.Sleep(time.Hour)
			e.Await(0, 0)
		}()
		err, took := e.fails(t)
		if err.Kind != wire.Silent || took != time.Hour+110*time.Second {
			t.Errorf("%v after %s", err, took)
		}
	})
}

func TestDrip(t *testing.T) {
	for _, c := range []struct {
		name, begin, drop string
		within            time.Duration
	}{
		{"in a line", "* OK ", "x", 2 * time.Minute},
		{"in a literal", "* 1 FETCH (UID 1 BODY[] {1000}\r\n", "x", 2 * time.Minute},
		{"of lines", "", "* OK still searching\r\n", 11 * time.Minute},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := guarded(t, "* OK\r\n")
				e.Await(1<<20, 1<<20)
				var server sync.WaitGroup
				server.Go(func() {
					_, err := io.WriteString(e.server, c.begin)
					for err == nil {
						time.Sleep(10 * time.Second)
						_, err = io.WriteString(e.server, c.drop)
					}
				})
				err, took := e.fails(t)
				if err.Kind != wire.Slow || took > c.within {
					t.Errorf("%v after %s", err, took)
				}
				server.Wait()
			})
		})
	}
}

// A large mail over a slow line takes long and is no fault.
func TestSlowButSteady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := guarded(t, "* OK\r\n")
		e.Await(1<<20, 1<<20)
		const size = 1 << 20
		go func() {
			e.say(t, "* 1 FETCH (UID 1 BODY[] {1048576}\r\n")
			for range size / 4096 {
				time.Sleep(2 * time.Second)
				e.say(t, strings.Repeat("x", 4096))
			}
			e.say(t, ")\r\nT1 OK\r\n")
			_ = e.server.Close()
		}()
		n, err := io.Copy(io.Discard, e.Conn)
		if n < size || e.Err() == nil || e.Err().Kind != wire.Gone {
			t.Errorf("%d bytes, %v", n, err)
		}
	})
}

func TestCloseWakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := guarded(t, "")
		e.Rest()
		time.AfterFunc(time.Hour, func() { _ = e.Close() })
		err, took := e.fails(t)
		if err.Kind != wire.Closed || took != time.Hour {
			t.Errorf("%v after %s", err, took)
		}
	})
}

// starttls runs a server that says lines, and returns what StartTLS makes of it.
func starttls(t *testing.T, server func(net.Conn)) error {
	t.Helper()
	network := imaptest.NewNet()
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := network.Accept()
		if err == nil {
			server(c)
		}
	}()
	conn, err := network.Dial(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	_, err = wire.StartTLS(t.Context(), conn, &tls.Config{ServerName: "localhost"}, 30*time.Second) //nolint:gosec // nobody gets that far
	_ = conn.Close()
	<-done
	return err
}

func TestStartTLS(t *testing.T) {
	says := func(lines ...string) func(net.Conn) {
		return func(c net.Conn) {
			for i, line := range lines {
				if i > 0 {
					if _, err := c.Read(make([]byte, 100)); err != nil {
						return
					}
				}
				_, _ = io.WriteString(c, line)
			}
			_, _ = c.Read(make([]byte, 1000)) // the hello, or the end
			_ = c.Close()
		}
	}
	for _, c := range []struct {
		name   string
		server func(net.Conn)
		want   string
	}{
		{"it is not offered", says("* OK hello\r\n", "S1 NO no such thing\r\n"), `says "S1 NO no such thing"`},
		{"PREAUTH", says("* PREAUTH hello\r\n"), `greeting: the server says "* PREAUTH hello"`},
		{"BYE", says("* BYE too many\r\n"), `greeting: the server says "* BYE too many"`},
		{"more behind the answer", says("* OK hello\r\n", "S1 OK go\r\nT1 OK injected\r\n"), "sent 16 bytes more in plain text"},
		{"untagged before the answer", says("* OK hello\r\n", "* OK wait\r\n* CAPABILITY X\r\nS1 NO no\r\n"), "S1 NO no"},
		{"no IMAP", says("220 smtp\r\n"), `greeting: the server says "220 smtp"`},
		{"no end of untagged lines", says("* OK hello\r\n", strings.Repeat("* OK\r\n", 1000)), "no answer within 100 lines"},
		{"an endless line", says("* OK hello\r\n", strings.Repeat("x", 100_000)), "buffer full"},
		{"no TLS", says("* OK hello\r\n", "S1 OK go\r\n"), "TLS handshake"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := starttls(t, c.server); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestStartTLSHasATime(t *testing.T) {
	for name, lines := range map[string]string{"no greeting": "", "no handshake": "* OK hello\r\nS1 OK go\r\n"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				from := time.Now()
				err := starttls(t, func(c net.Conn) {
					greeting, rest, _ := strings.Cut(lines, "\n")
					if greeting != "" {
						_, _ = io.WriteString(c, greeting+"\n")
						_, _ = c.Read(make([]byte, 100))
						_, _ = io.WriteString(c, rest)
					}
					_, _ = io.Copy(io.Discard, c)
				})
				if took := time.Since(from); !errors.Is(err, context.DeadlineExceeded) || took != 30*time.Second {
					t.Errorf("%v after %s", err, took)
				}
			})
		})
	}
}

// A write that fails ends the connection, and go-imap hears of it where it reads, not where it writes: it would end the commands whose answers its reader is
// just handing on.
func TestFailedWriteIsToldToTheReaderFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := guarded(t, "")
		_ = e.server.Close() // as a server that dies does
		for range 3 {
			if n, err := e.Write([]byte("T1 NOOP\r\n")); n != 9 || err != nil {
				t.Fatalf("wrote %d, %v", n, err)
			}
		}
		if e.Err() == nil {
			t.Error("the connection has not ended")
		}
		if err, _ := e.fails(t); err.Kind != wire.Gone { // and the next write fails
			t.Errorf("%v", err)
		}
		aborted := guarded(t, "")
		aborted.Abort()
		if _, err := aborted.Write([]byte("x")); err != nil {
			t.Errorf("the reader does not know yet: %v", err)
		}
		_ = aborted.Close() // as go-imap's reader does at its end
		if _, err := aborted.Write([]byte("x")); err == nil {
			t.Error("nobody would end this command")
		}
	})
}
