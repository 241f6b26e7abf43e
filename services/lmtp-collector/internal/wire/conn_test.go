package wire_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"spamtraps.internal/lmtp-collector/internal/wire"
)

var limits = wire.Limits{Idle: 5 * time.Minute, Transaction: 30 * time.Minute, Rate: 10, Write: time.Minute, MessageBytes: 1000}

// pair returns a Conn and what its peer holds.
func pair(t *testing.T) (*wire.Conn, net.Conn) {
	t.Helper()
	return pairWith(t, false)
}

// pairWith is pair for a peer whose XFORWARD is believed or not.
func pairWith(t *testing.T, believed bool) (*wire.Conn, net.Conn) {
	t.Helper()
	ours, peer := net.Pipe()
	conn := wire.New(ours, limits, wire.Offer{XForward: believed}, func() {})
	t.Cleanup(func() {
		_ = conn.Close()
		_ = peer.Close()
	})
	return conn, peer
}

// send writes without waiting for it to be read.
func send(t *testing.T, peer net.Conn, text string) {
	t.Helper()
	go func() { _, _ = io.WriteString(peer, text) }()
}

// replies gathers what the peer receives until the connection ends.
func replies(peer net.Conn) <-chan string {
	all := make(chan string, 1)
	go func() {
		text, _ := io.ReadAll(peer)
		all <- string(text)
	}()
	return all
}

func read(t *testing.T, conn *wire.Conn) string {
	t.Helper()
	buffer := make([]byte, 64<<10)
	n, err := conn.Read(buffer)
	if err != nil {
		t.Fatalf("Read: %v", err)
	}
	return string(buffer[:n])
}

func write(t *testing.T, conn *wire.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatalf("Write: %v", err)
	}
}

// startMail takes a Conn to the state after 354.
func startMail(t *testing.T, conn *wire.Conn, peer net.Conn) {
	t.Helper()
	send(t, peer, "MAIL FROM:<>\r\nDATA\r\n")
	in := bufio.NewReaderSize(peer, 16)
	for _, reply := range []string{"250 ok\r\n", "354 go\r\n"} {
		read(t, conn)
		go func() { _, _ = io.WriteString(conn, reply) }()
		if line, err := in.ReadString('\n'); err != nil || line != reply {
			t.Fatalf("got %q, %v", line, err)
		}
	}
	synctest.Wait()
}

// readMail returns the mail that the session would get.
func readMail(conn *wire.Conn) (string, error) {
	var text strings.Builder
	err := conn.ReadMail(func(piece []byte) { text.Write(piece) })
	return text.String(), err
}

// wantEnd checks that the Conn is at its end, for the reason that the log shall see, and stays there.
func wantEnd(t *testing.T, conn *wire.Conn, why string) {
	t.Helper()
	for range 2 {
		n, err := conn.Read(make([]byte, 100))
		var end *wire.Error
		if n != 0 || !errors.As(err, &end) || !strings.Contains(end.Error(), why) {
			t.Fatalf("Read: %d, %v; want an end because %q", n, err, why)
		}
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("go-smtp would add a reply to %v", err)
		}
	}
	if _, err := io.WriteString(conn, "250 2.0.0 OK\r\n"); err == nil {
		t.Error("a reply left after the end")
	}
}

func TestReadHandsOutOneLineAtATime(t *testing.T) {
	conn, peer := pair(t)
	send(t, peer, "LHLO a\r\nMAIL FROM:<>\nNOOP\r\n")
	for _, want := range []string{"LHLO a\r\n", "MAIL FROM:<>\r\n", "NOOP\r\n"} {
		if got := read(t, conn); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestReadHandsOutALineInPieces(t *testing.T) {
	conn, peer := pair(t)
	send(t, peer, "NOOP\r\nQUIT\r\n")
	piece := make([]byte, 4)
	for _, want := range []string{"NOOP", "\r\n", "QUIT", "\r\n"} {
		n, err := conn.Read(piece)
		if err != nil || string(piece[:n]) != want {
			t.Errorf("got %q, %v, want %q", piece[:n], err, want)
		}
	}
}

func TestTooLongCommandIsReadOver(t *testing.T) {
	conn, peer := pair(t)
	send(t, peer, "RCPT TO:<"+strings.Repeat("a", 4096)+">\r\nNOOP\r\n")
	answer := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(peer).ReadString('\n')
		answer <- line
	}()
	if got := read(t, conn); got != "NOOP\r\n" {
		t.Errorf("go-smtp got %.50q", got)
	}
	if got := <-answer; got != "500 5.5.2 Command line too long\r\n" {
		t.Errorf("the answer is %q", got)
	}
}

func TestReplyThatQuotesThePeerDoesNotStartABody(t *testing.T) {
	conn, peer := pair(t)
	told := replies(peer)
	send(t, peer, "RCPT TO:<\"354 x\"@y>\r\nBDAT 1 LAST\r\n")
	read(t, conn)
	write(t, conn, "354 x@y\r\n") // the second part of a reply that was longer than go-smtp's buffer
	wantEnd(t, conn, "BDAT")
	_ = conn.Close()
	<-told
}

// A reply that go-smtp writes in two parts, because the recipient in it is long, has text of the peer's at the start of the second.
func TestReplyThatQuotesThePeerDoesNotStartASecondMail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn, peer := pair(t)
		startMail(t, conn, peer)
		send(t, peer, ".\r\nNOOP\r\n")
		told := replies(peer)
		read(t, conn)
		write(t, conn, "250 2.0.0 <")
		write(t, conn, "354 x@y> OK\r\n")
		if got := read(t, conn); got != "NOOP\r\n" {
			t.Errorf("got %q", got)
		}
		_ = conn.Close()
		<-told
	})
}

func TestLHLOReply(t *testing.T) {
	conn, peer := pair(t)
	told := replies(peer)
	send(t, peer, "lhlo a\r\n")
	read(t, conn)
	for _, line := range []string{"250-Hello a\r\n", "250-CHUNKING\r\n", "250-SIZE\r\n", "250 LIMITS\r\n"} {
		write(t, conn, line)
	}
	_ = conn.Close()
	if got, want := <-told, "250-Hello a\r\n250-SIZE 1000\r\n250 LIMITS\r\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestEnds(t *testing.T) {
	const (
		idle    = "421 4.4.2 Idle for too long, closing connection\r\n"
		slow    = "421 4.4.2 Transaction took too long, closing connection\r\n"
		rate    = "421 4.4.2 Transfer is too slow, closing connection\r\n"
		stopped = "421 4.3.2 Closing connection, please try again later\r\n"
	)
	drip := func(text string, every time.Duration) func(*wire.Conn, net.Conn) {
		return func(_ *wire.Conn, peer net.Conn) {
			for {
				time.Sleep(every) // the bubble's time
				if _, err := io.WriteString(peer, text); err != nil {
					return
				}
			}
		}
	}
	hangUp := func(last string) func(*wire.Conn, net.Conn) {
		return func(_ *wire.Conn, peer net.Conn) {
			_, _ = io.WriteString(peer, last)
			synctest.Wait() // a pipe, unlike a socket, cannot be given a deadline once its peer is gone
			_ = peer.Close()
		}
	}
	tests := []struct {
		name   string
		inBody bool
		does   func(conn *wire.Conn, peer net.Conn)
		why    string
		told   string
		after  time.Duration
	}{
		{"silent", false, func(*wire.Conn, net.Conn) {}, "silent", idle, 5 * time.Minute},
		{"silent in a mail", true, func(*wire.Conn, net.Conn) {}, "silent", idle, 5 * time.Minute},
		{"one command, a byte a minute", false, drip("x", time.Minute), "silent", idle, 5 * time.Minute},
		{"one mail, fast enough, but too long", true, drip(strings.Repeat("x", 600), time.Minute), "too long", slow, 30 * time.Minute},
		{"one mail, a byte a second", true, drip("x", time.Second), "least rate", rate, 333300 * time.Millisecond},
		{"gone", false, hangUp(""), "peer closed", "", 0},
		{"gone within a command", false, hangUp("QUIT"), "peer closed", "", 0},
		{"gone within a mail", true, hangUp("half a line"), "peer closed", "", 0},
		{"endless command", false, func(_ *wire.Conn, peer net.Conn) {
			_, _ = io.WriteString(peer, strings.Repeat("x", 17<<10))
		}, "too long", "500 5.5.2 Line too long, closing connection\r\n", 0},
		{"BDAT", false, func(_ *wire.Conn, peer net.Conn) {
			_, _ = io.WriteString(peer, "bdat 12 LAST\r\n")
		}, "BDAT", "421 4.5.1 BDAT is not offered, closing connection\r\n", 0},
		{"stopped", false, func(conn *wire.Conn, _ net.Conn) {
			time.Sleep(time.Minute)
			conn.Stop(time.Now().Add(10 * time.Second))
		}, "stopped", stopped, time.Minute},
		{"stopped, with a command under way", false, func(conn *wire.Conn, peer net.Conn) {
			conn.Stop(time.Now().Add(10 * time.Second))
			_, _ = io.WriteString(peer, "MAIL FROM:<>\r\n")
		}, "stopped", stopped, 0},
		{"stopped within a mail", true, func(conn *wire.Conn, peer net.Conn) {
			conn.Stop(time.Now().Add(10 * time.Second))
			drip("x\r\n", time.Second)(conn, peer)
		}, "stopped", stopped, 10 * time.Second},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conn, peer := pair(t)
				if test.inBody {
					startMail(t, conn, peer)
				}
				told := replies(peer)
				start := time.Now()
				done := make(chan struct{})
				go func() {
					defer close(done)
					test.does(conn, peer)
				}()
				var end error
				for end == nil {
					if test.inBody {
						_, end = readMail(conn)
					} else {
						_, end = conn.Read(make([]byte, 100))
					}
				}
				if took := time.Since(start).Round(time.Millisecond); took != test.after {
					t.Errorf("ended after %s, want %s", took, test.after)
				}
				wantEnd(t, conn, test.why)
				_ = conn.Close()
				if got := <-told; got != test.told {
					t.Errorf("the peer was told %q, want %q", got, test.told)
				}
				<-done
			})
		})
	}
}

// What was pipelined behind QUIT, or behind the error on which go-smtp closed, must not be executed.
func TestCloseDropsWhatWasReadAhead(t *testing.T) {
	conn, peer := pair(t)
	send(t, peer, "QUIT\r\nMAIL FROM:<>\r\n")
	read(t, conn)
	_ = conn.Close()
	wantEnd(t, conn, "closed")
}

func TestStoppedSessionIgnoresPipelinedCommands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn, peer := pair(t)
		send(t, peer, "NOOP\r\nMAIL FROM:<>\r\n")
		read(t, conn)
		told := replies(peer)
		conn.Stop(time.Now().Add(time.Minute))
		wantEnd(t, conn, "stopped")
		_ = conn.Close()
		<-told
	})
}

func TestPeerThatDoesNotReadIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn, peer := pair(t)
		send(t, peer, "NOOP\r\nNOOP\r\n")
		read(t, conn)
		start := time.Now()
		if _, err := io.WriteString(conn, "250 OK\r\n"); err == nil {
			t.Fatal("a reply left that nobody read")
		}
		if took := time.Since(start); took != limits.Write {
			t.Errorf("gave up after %s", took)
		}
		wantEnd(t, conn, "reply could not be sent")
	})
}

func TestOnCloseIsCalledOnce(t *testing.T) {
	ours, peer := net.Pipe()
	defer peer.Close()
	calls := 0
	conn := wire.New(ours, limits, wire.Offer{}, func() { calls++ })
	_ = conn.Close()
	_ = conn.Close()
	if calls != 1 {
		t.Errorf("called %d times", calls)
	}
}
