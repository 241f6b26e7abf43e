package wire_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"spamtraps.internal/lmtp-collector/internal/wire"
)

var limits = wire.Limits{Idle: 5 * time.Minute, Transaction: 30 * time.Minute, Write: time.Minute, MessageBytes: 1000}

// pair returns a Conn and what its peer holds.
func pair(t *testing.T) (*wire.Conn, net.Conn) {
	t.Helper()
	ours, peer := net.Pipe()
	conn := wire.New(ours, limits, func() {})
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

// startBody takes a Conn to the state after 354.
func startBody(t *testing.T, conn *wire.Conn, peer net.Conn) {
	t.Helper()
	send(t, peer, "MAIL FROM:<>\r\nDATA\r\n")
	read(t, conn)
	read(t, conn)
	go func() { _, _ = io.WriteString(conn, "354 go\r\n") }()
	if line, err := bufio.NewReaderSize(peer, 16).ReadString('\n'); err != nil || line != "354 go\r\n" {
		t.Fatalf("got %q, %v", line, err)
	}
	synctest.Wait()
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
	for _, want := range []string{"LHLO a\r\n", "MAIL FROM:<>\n", "NOOP\r\n"} {
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

func TestBodyHasNoLineLimitAndIsUntouched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn, peer := pair(t)
		startBody(t, conn, peer)
		body := strings.Repeat("x\x00\xff\r", 50_000) + "\nBDAT 10 LAST\r\nLHLO\n.\r\n"
		send(t, peer, body)
		var got strings.Builder
		for got.Len() < len(body) {
			got.WriteString(read(t, conn))
		}
		if got.String() != body {
			t.Error("the body was changed")
		}
	})
}

func TestCommandBehindBodyIsACommandAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn, peer := pair(t)
		startBody(t, conn, peer)
		send(t, peer, "text\r\n.\r\nBDAT 3 LAST\r\nabc")
		if got := read(t, conn) + read(t, conn); got != "text\r\n.\r\n" {
			t.Fatalf("got %q", got)
		}
		told := replies(peer)
		write(t, conn, "250 2.0.0 <a> OK\r\n")
		wantEnd(t, conn, "BDAT")
		_ = conn.Close()
		if got := <-told; got != "250 2.0.0 <a> OK\r\n421 4.5.1 BDAT is not offered, closing connection\r\n" {
			t.Errorf("the peer was told %q", got)
		}
	})
}

func TestTooLongCommandIsReadOver(t *testing.T) {
	conn, peer := pair(t)
	send(t, peer, "RCPT TO:<"+strings.Repeat("a", 4096)+">\r\nNOOP\r\n")
	if got := read(t, conn); got != "\r\n" {
		t.Errorf("go-smtp got %.50q, want an empty command", got)
	}
	if got := read(t, conn); got != "NOOP\r\n" {
		t.Errorf("got %q", got)
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
		stopped = "421 4.3.2 Service is shutting down, please try again later\r\n"
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
		{"one mail, a line a minute", true, drip("x\r\n", time.Minute), "too long", slow, 30 * time.Minute},
		{"gone", false, func(_ *wire.Conn, peer net.Conn) { _ = peer.Close() }, "peer closed", "", 0},
		{"gone within a command", false, func(_ *wire.Conn, peer net.Conn) {
			_, _ = io.WriteString(peer, "QUIT")
			_ = peer.Close()
		}, "peer closed", "", 0},
		{"gone within a mail", true, func(_ *wire.Conn, peer net.Conn) {
			_, _ = io.WriteString(peer, "half a line")
			_ = peer.Close()
		}, "peer closed", "", 0},
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
					startBody(t, conn, peer)
				}
				told := replies(peer)
				start := time.Now()
				done := make(chan struct{})
				go func() {
					defer close(done)
					test.does(conn, peer)
				}()
				for {
					if _, err := conn.Read(make([]byte, 100)); err != nil {
						break
					}
				}
				if took := time.Since(start); took != test.after {
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
	conn := wire.New(ours, limits, func() { calls++ })
	_ = conn.Close()
	_ = conn.Close()
	if calls != 1 {
		t.Errorf("called %d times", calls)
	}
}

// Whatever a peer sends, and in whatever pieces: a session of commands is handed out as it came, but for what is too long.
func FuzzCommands(f *testing.F) {
	f.Add([]byte("LHLO a\r\nNOOP\r\n"), uint8(3))
	f.Add([]byte("a\n\n\r\r\n\x00"), uint8(1))
	f.Fuzz(func(t *testing.T, sent []byte, size uint8) {
		if bytes.Contains(bytes.ToUpper(sent), []byte("BDAT")) || len(sent) > 4096 {
			return
		}
		conn, peer := pair(t)
		go func() {
			for piece := range chunks(sent, int(size)+1) {
				if _, err := peer.Write(piece); err != nil {
					return
				}
			}
			_ = peer.Close()
		}()
		var got []byte
		for {
			buffer := make([]byte, 1+int(size)%7)
			n, err := conn.Read(buffer)
			got = append(got, buffer[:n]...)
			if err != nil {
				break
			}
		}
		if whole := sent[:bytes.LastIndexByte(sent, '\n')+1]; !bytes.Equal(got, whole) {
			t.Errorf("got %q of %q", got, sent)
		}
	})
}

func chunks(all []byte, size int) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(all) > 0 {
			n := min(size, len(all))
			if !yield(all[:n]) {
				return
			}
			all = all[n:]
		}
	}
}
