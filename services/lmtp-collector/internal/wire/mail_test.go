package wire_test

import (
	"bytes"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"spamtraps.internal/lmtp-collector/internal/wire"
)

// What ends a mail, and what is text. Each row is what follows 354.
func TestEndOfMail(t *testing.T) {
	tests := []struct{ name, sent, mail, behind string }{
		{"empty", ".\r\n", "", ""},
		{"a line", "a\r\n.\r\n", "a\r\n", ""},
		{"an empty line", "\r\n.\r\n", "\r\n", ""},
		{"a dot put before a dot", "..\r\n...\r\n..x\r\n.\r\n", ".\r\n..\r\n.x\r\n", ""},
		{"a dot that nobody put another before", ".x\r\n. \r\n.\r\n", "x\r\n \r\n", ""},
		{"dots elsewhere", "a.\r\n a..b\r\n.\r\n", "a.\r\n a..b\r\n", ""},
		{"LF . LF", "a\n.\nb\r\n.\r\n", "a\n.\nb\r\n", ""},
		{"LF . CR LF", "a\n.\r\nb\r\n.\r\n", "a\n.\r\nb\r\n", ""},
		{"CR LF . LF", "a\r\n.\nb\r\n.\r\n", "a\r\n\nb\r\n", ""},
		{"CR . CR", "a\r.\rb\r\n.\r\n", "a\r.\rb\r\n", ""},
		{"CR . CR LF", "a\r.\r\nb\r\n.\r\n", "a\r.\r\nb\r\n", ""},
		{"CR LF . CR and text", "a\r\n.\rb\r\n.\r\n", "a\r\n\rb\r\n", ""},
		{"CR LF . CR CR LF", "a\r\n.\r\r\n.\r\n", "a\r\n\r\r\n", ""},
		{"CR LF . CR . CR LF", "a\r\n.\r.\r\n.\r\n", "a\r\n\r.\r\n", ""},
		{"CR LF NUL . CR LF", "a\r\n\x00.\r\n.\r\n", "a\r\n\x00.\r\n", ""},
		{"CR LF . NUL CR LF", "a\r\n.\x00\r\n.\r\n", "a\r\n\x00\r\n", ""},
		{"LF CR LF . CR LF", "a\n\r\n.\r\n", "a\n\r\n", ""},
		{"CR CR LF . CR LF", "a\r\r\n.\r\n", "a\r\r\n", ""},
		{"CR CR LF and a dot before a dot", "a\r\r\n..b\r\n.\r\n", "a\r\r\n.b\r\n", ""},
		{"only CR", "\r\r\r\r\n.\r\n", "\r\r\r\r\n", ""},
		{"every byte", everyByte() + "\r\n.\r\n", everyByte() + "\r\n", ""},
		{"a line longer than any buffer", strings.Repeat("x\x00\xff\r", 50_000) + "\r\n.\r\n", strings.Repeat("x\x00\xff\r", 50_000) + "\r\n", ""},
		{"like commands", "QUIT\r\nBDAT 5 LAST\r\nDATA\r\n.\r\n", "QUIT\r\nBDAT 5 LAST\r\nDATA\r\n", ""},
		{"a command behind it", "a\r\n.\r\nQUIT\r\n", "a\r\n", "QUIT\r\n"},
		{"what looks like a second end behind it", ".\r\n.\r\nNOOP\r\n", "", "NOOP\r\n"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			for size := range 7 { // in pieces of 1 to 6 bytes, and whole
				if size == 0 {
					size = len(test.sent)
				}
				if len(test.sent)/size > 1000 {
					continue
				}
				synctest.Test(t, func(t *testing.T) {
					conn, peer := pair(t)
					startMail(t, conn, peer)
					go func() {
						for piece := range chunks([]byte(test.sent), size) {
							_, _ = peer.Write(piece)
						}
					}()
					if got, err := readMail(conn); got != test.mail || err != nil {
						t.Errorf("in pieces of %d: got %.100q, %v, want %.100q", size, got, err, test.mail)
					}
					if got := read(t, conn); got != ".\r\n" {
						t.Errorf("go-smtp got %q, want an empty mail", got)
					}
					go func() { _, _ = io.Copy(io.Discard, peer) }()
					if test.behind != "" {
						if got := read(t, conn); got != test.behind {
							t.Errorf("behind it: %q", got)
						}
					}
				})
			}
		})
	}
}

func everyByte() string {
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	return string(every)
}

// A session that answers a mail without having read it, as one that panics does, must not get it as commands.
func TestMailThatNobodyReadIsReadOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn, peer := pair(t)
		startMail(t, conn, peer)
		told := replies(peer)
		go func() { _, _ = io.WriteString(peer, "MAIL FROM:<evil@x>\r\n.\r\nNOOP\r\n") }()
		write(t, conn, "451 4.3.0 <a> later\r\n")
		write(t, conn, "451 4.3.0 <b> later\r\n")
		if got := read(t, conn); got != ".\r\n" {
			t.Errorf("got %q, want an empty mail", got)
		}
		if got := read(t, conn); got != "NOOP\r\n" {
			t.Errorf("got %q", got)
		}
		_ = conn.Close()
		<-told
	})
}

func TestCommandBehindMailIsACommandAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn, peer := pair(t)
		startMail(t, conn, peer)
		send(t, peer, "text\r\n.\r\nBDAT 3 LAST\r\nabc")
		if got, err := readMail(conn); got != "text\r\n" || err != nil {
			t.Fatalf("got %q, %v", got, err)
		}
		read(t, conn)
		told := replies(peer)
		write(t, conn, "250 2.0.0 <a> OK\r\n")
		wantEnd(t, conn, "BDAT")
		_ = conn.Close()
		if got := <-told; got != "250 2.0.0 <a> OK\r\n421 4.5.1 BDAT is not offered, closing connection\r\n" {
			t.Errorf("the peer was told %q", got)
		}
	})
}

// After half a mail there is no mail any more, and no command.
func TestBrokenMailIsTheEnd(t *testing.T) {
	for _, half := range []string{"", "x", "x\r", "x\r\n", "x\r\n.", "x\r\n.\r", "x\n.\n"} {
		synctest.Test(t, func(t *testing.T) {
			conn, peer := pair(t)
			startMail(t, conn, peer)
			broken := make(chan error, 1)
			go func() {
				_, err := readMail(conn)
				broken <- err
			}()
			_, _ = io.WriteString(peer, half)
			synctest.Wait() // it waits for more
			_ = peer.Close()
			if err := <-broken; err == nil {
				t.Errorf("%q was taken as a mail", half)
			}
			if _, err := readMail(conn); err == nil {
				t.Errorf("%q: a second mail", half)
			}
			wantEnd(t, conn, "peer closed")
		})
	}
}

// After the end there is no mail, though one had been read ahead whole.
func TestCloseDropsAMailThatWasReadAhead(t *testing.T) {
	conn, peer := pair(t)
	told := replies(peer)
	send(t, peer, "MAIL FROM:<>\r\nDATA\r\nx\r\n.\r\n")
	for _, reply := range []string{"250 ok\r\n", "354 go\r\n"} {
		read(t, conn)
		write(t, conn, reply)
	}
	_ = conn.Close()
	if got, err := readMail(conn); err == nil {
		t.Errorf("got %q", got)
	}
	<-told
}

// The same bytes, in whatever pieces they come, are the same commands and mails, and those that a plain reading finds.
func FuzzStream(f *testing.F) {
	for _, stream := range []string{
		"LHLO a\r\nNOOP\r\n",
		"a\n\n\r\r\n\x00",
		"DATA\r\na\r\n.\r\nDATA\r\n.\r\nQUIT\r\n",
		"DATA\n..\r\n.\rx\r\r\n.\r\ndata\r\n\r\n.\n\r\n.\r\n.\r\n",
		"DATA\r\n\r.\r\n\n.\r\n.\r\r\n.\r\nNOOP",
		"DATA\r\nhalf\r\n.",
		"DATA\r\n" + strings.Repeat("x", 20_000) + "\r\n.\r\nNOOP\r\n",
	} {
		for _, size := range []uint16{0, 1, 2, 1000} {
			f.Add([]byte(stream), size)
		}
	}
	f.Fuzz(func(t *testing.T, stream []byte, size uint16) {
		for _, special := range []string{"BDAT", "MAIL", "RCPT"} {
			if bytes.Contains(bytes.ToUpper(stream), []byte(special)) {
				return
			}
		}
		got, want := drive(wire.New(&script{rest: stream, size: int(size) + 1}, limits, wire.Offer{}, func() {})), plainReading(stream)
		if !slices.Equal(got, want) {
			t.Errorf("got  %.500q\nwant %.500q", got, want)
		}
	})
}

// script is a peer that sends its bytes in pieces of one size, hears everything and then hangs up.
type script struct {
	net.Conn
	rest []byte
	size int
}

func (s *script) Read(p []byte) (int, error) {
	if len(s.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.rest[:min(s.size, len(s.rest))])
	s.rest = s.rest[n:]
	return n, nil
}

func (s *script) Write(p []byte) (int, error)      { return len(p), nil }
func (s *script) Close() error                     { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }

// drive does with a Conn what go-smtp and a session do, and returns the commands and mails that it got.
func drive(conn *wire.Conn) (got []string) {
	defer conn.Close()
	buffer := make([]byte, 64<<10)
	for {
		n, err := conn.Read(buffer)
		if err != nil {
			return got
		}
		got = append(got, string(buffer[:n]))
		reply := "500 what?\r\n"
		if isData(buffer[:n]) {
			_, _ = io.WriteString(conn, "354 go\r\n")
			mail, err := readMail(conn)
			if err != nil {
				return got
			}
			if n, err := conn.Read(buffer); err != nil || string(buffer[:n]) != ".\r\n" {
				return append(got, "no empty mail")
			}
			got = append(got, mail)
			reply = "250 yes\r\n"
		}
		_, _ = io.WriteString(conn, reply)
	}
}

// plainReading is RFC 5321 §4.5.2 word by word: up to the first CR LF . CR LF, and of each CR LF . the dot goes.
func plainReading(stream []byte) (want []string) {
	for {
		end := bytes.IndexByte(stream, '\n') + 1
		if end == 0 || end > 16<<10 {
			return want
		}
		line := stream[:end]
		stream = stream[end:]
		command := strings.TrimRight(string(line), " \t\r\n")
		verb, _, _ := strings.Cut(command, " ")
		if len(line) > 4096 || !slices.Contains(commands, strings.ToUpper(verb)) {
			continue
		}
		want = append(want, command+"\r\n")
		if !isData(line) {
			continue
		}
		whole := append([]byte("\r\n"), stream...)
		end = bytes.Index(whole, []byte("\r\n.\r\n"))
		if end < 0 {
			return want
		}
		text := bytes.ReplaceAll(whole[:end+2], []byte("\r\n."), []byte("\r\n"))
		want = append(want, string(text[2:]))
		stream = whole[end+5:]
	}
}

// commands are those that go-smtp gets to see, but for MAIL and RCPT.
var commands = []string{"LHLO", "DATA", "RSET", "NOOP", "QUIT", "VRFY", "EXPN", "HELP", "HELO", "EHLO", "AUTH"}

func isData(line []byte) bool {
	return strings.EqualFold(strings.TrimRight(string(line), " \t\r\n"), "DATA")
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
