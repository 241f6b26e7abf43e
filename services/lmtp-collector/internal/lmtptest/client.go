// Package lmtptest is an LMTP client for tests: it sends raw bytes and returns the replies as they come, and so can also do
// what no well-behaved client does.
package lmtptest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"time"
)

// patience is how long a client waits for a reply, far beyond any that a test provokes.
const patience = 60 * time.Second

// Client is a connection to an LMTP server. It is for one goroutine.
type Client struct {
	net.Conn
	in *bufio.Reader
}

// Dial connects and reads the greeting, which is an error unless it is 220.
func Dial(network, address string) (*Client, error) {
	dialer := net.Dialer{Timeout: patience}
	conn, err := dialer.DialContext(context.Background(), network, address)
	if err != nil {
		return nil, err
	}
	c := &Client{Conn: conn, in: bufio.NewReader(conn)}
	greeting, err := c.Reply()
	if err == nil && !strings.HasPrefix(greeting, "220 ") {
		err = fmt.Errorf("greeting is %q", greeting)
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return c, nil
}

// Send writes raw bytes.
func (c *Client) Send(raw string) error {
	_ = c.SetWriteDeadline(time.Now().Add(patience))
	_, err := c.Write([]byte(raw))
	return err
}

// Reply returns the next reply, its lines separated by "\n". Its error is io.EOF when the server closed the connection.
func (c *Client) Reply() (string, error) {
	_ = c.SetReadDeadline(time.Now().Add(patience))
	var lines []string
	for {
		line, err := c.in.ReadString('\n')
		if err != nil {
			return strings.Join(lines, "\n"), err
		}
		line = strings.TrimSuffix(line, "\r\n")
		lines = append(lines, line)
		if len(line) < 4 || line[3] != '-' {
			return strings.Join(lines, "\n"), nil
		}
	}
}

// Ask sends a command and returns its reply.
func (c *Client) Ask(command string) (string, error) {
	if err := c.Send(command + "\r\n"); err != nil {
		return "", err
	}
	return c.Reply()
}

// RefusedError is the reply to a command that Deliver needed a better one to.
type RefusedError struct{ Reply string }

// Error returns the reply.
func (r *RefusedError) Error() string { return r.Reply }

// Deliver hands over one mail in a session that has said LHLO, and returns the reply to each recipient. A command that is
// refused before the mail ends the transaction: the error is *RefusedError then, and the session can be used further.
func (c *Client) Deliver(from string, to []string, body []byte) ([]string, error) {
	commands := []struct{ send, want string }{{"MAIL FROM:<" + from + ">", "250 "}}
	for _, rcpt := range to {
		commands = append(commands, struct{ send, want string }{"RCPT TO:<" + rcpt + ">", "250 "})
	}
	commands = append(commands, struct{ send, want string }{"DATA", "354 "})
	for _, command := range commands {
		reply, err := c.Ask(command.send)
		if err != nil {
			return nil, err
		}
		if !strings.HasPrefix(reply, command.want) {
			if _, err := c.Ask("RSET"); err != nil {
				return nil, err
			}
			return nil, &RefusedError{Reply: reply}
		}
	}
	if err := c.Send(Stuff(body)); err != nil {
		return nil, err
	}
	replies := make([]string, len(to))
	for i := range replies {
		var err error
		if replies[i], err = c.Reply(); err != nil {
			return nil, err
		}
	}
	return replies, nil
}

// Stuff returns a body as it is sent after DATA: with a dot before each line that begins with one, and the end (RFC 5321
// §4.5.2). A body must end in CRLF or be empty, or there is no way to send it.
func Stuff(body []byte) string {
	stuffed := bytes.ReplaceAll(append([]byte("\r\n"), body...), []byte("\r\n."), []byte("\r\n.."))
	return string(stuffed[2:]) + ".\r\n"
}

// Secure says STARTTLS and makes the connection a TLS one. The session must begin anew, with LHLO.
func (c *Client) Secure(config *tls.Config) error {
	reply, err := c.Ask("STARTTLS")
	switch {
	case err != nil:
		return err
	case !strings.HasPrefix(reply, "220 "):
		return &RefusedError{Reply: reply}
	}
	secure := tls.Client(c.Conn, config)
	_ = secure.SetDeadline(time.Now().Add(patience))
	if err := secure.HandshakeContext(context.Background()); err != nil {
		return err
	}
	c.Conn, c.in = secure, bufio.NewReader(secure)
	return nil
}
