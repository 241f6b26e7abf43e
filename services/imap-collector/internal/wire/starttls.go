package wire

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"time"
)

const (
	plainLine  = 8 << 10 // bytes of a line before TLS
	plainLines = 100     // of them
)

// RefusalError is what a server said instead of going on.
type RefusalError struct {
	Doing string // what we asked for: "greeting", "STARTTLS"
	Text  string // the server's words, cut
}

func (e *RefusalError) Error() string { return fmt.Sprintf("%s: the server says %q", e.Doing, e.Text) }

// StartTLS reads the greeting and makes the connection private by the command STARTTLS (RFC 9051 §6.2.1), all within limit and until ctx ends. Nothing
// of what the server said before is used: not its capabilities, and anything behind its OK is an error, for somebody may have put it there. So
// is PREAUTH. After any error the caller closes conn. Errors are *RefusalError, or from the network or TLS.
func StartTLS(ctx context.Context, conn net.Conn, cfg *tls.Config, limit time.Duration) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }) // wakes who reads or writes
	defer stop()
	plain := bufio.NewReaderSize(conn, plainLine)
	greeting, err := readLine(plain)
	if err != nil {
		return nil, inTime(ctx, "greeting", err)
	}
	if !hasWord(greeting, "*", "OK") {
		return nil, &RefusalError{Doing: "greeting", Text: cut(greeting)}
	}
	if _, err := conn.Write([]byte("S1 STARTTLS\r\n")); err != nil {
		return nil, inTime(ctx, "STARTTLS", err)
	}
	if err := awaitOK(plain, "S1"); err != nil {
		return nil, inTime(ctx, "STARTTLS", err)
	}
	if plain.Buffered() > 0 {
		return nil, fmt.Errorf("STARTTLS: the server sent %d bytes more in plain text behind its answer", plain.Buffered())
	}
	private := tls.Client(conn, cfg)
	if err := private.HandshakeContext(ctx); err != nil {
		return nil, inTime(ctx, "TLS handshake", err)
	}
	return private, nil
}

// awaitOK reads up to the answer with the tag, and returns an error unless it is OK.
func awaitOK(plain *bufio.Reader, tag string) error {
	for range plainLines {
		line, err := readLine(plain)
		if err != nil {
			return err
		}
		switch {
		case hasWord(line, tag, "OK"):
			return nil
		case strings.HasPrefix(line, tag+" "), hasWord(line, "*", "BYE"):
			return &RefusalError{Doing: "STARTTLS", Text: cut(line)}
		case !strings.HasPrefix(line, "* "):
			return fmt.Errorf("STARTTLS: the server does not speak IMAP, but says %s", clip([]byte(line)))
		}
	}
	return fmt.Errorf("STARTTLS: no answer within %d lines", plainLines)
}

func readLine(plain *bufio.Reader) (string, error) {
	line, err := plain.ReadSlice('\n')
	if err != nil {
		return "", err
	}
	return strings.TrimRight(string(line), "\r\n"), nil
}

// hasWord tells whether a line begins with a tag and a word.
func hasWord(line, tag, word string) bool {
	rest, found := strings.CutPrefix(line, tag+" ")
	if !found {
		return false
	}
	first, _, _ := strings.Cut(rest, " ")
	return strings.EqualFold(first, word)
}

func cut(line string) string {
	const most = 200
	if len(line) > most {
		return line[:most] + "…"
	}
	return line
}

// inTime says that an error came from the end of the time, if it did.
func inTime(ctx context.Context, doing string, err error) error {
	if _, refused := err.(*RefusalError); refused { //nolint:errorlint // it is never wrapped
		return err
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", doing, context.Cause(ctx))
	}
	return fmt.Errorf("%s: %w", doing, err)
}
