package auth

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// accessToken is what a server is shown.
type accessToken struct {
	access  string
	expires time.Time // zero: nobody knows
}

// source is where access tokens come from. Errors are *Error.
type source interface {
	token(ctx context.Context) (accessToken, error)
	// refuse says that a server did not take a token.
	refuse(accessToken)
	describe() string
	lasts() Lasts
}

// Lasts is how old a refresh token is and until when it can be used. A zero time: nobody knows, or there is none.
type Lasts struct {
	// Since is when the provider gave it, or when its file was written.
	Since time.Time
	// Until is when it ends, if it is not used before.
	Until time.Time
}

// maxTokenBytes is far beyond the largest token seen, those of Microsoft with many roles.
const maxTokenBytes = 64 << 10

// fileSource is a file that another program renews.
type fileSource struct{ path string }

func (f fileSource) token(context.Context) (accessToken, error) {
	file, err := os.Open(f.path)
	if err != nil {
		return accessToken{}, &Error{Err: fmt.Errorf("read token: %w", err)}
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxTokenBytes+1))
	if err != nil {
		return accessToken{}, &Error{Err: fmt.Errorf("read token: %w", err)}
	}
	token, err := parseToken(data)
	if err != nil {
		return accessToken{}, &Error{Err: fmt.Errorf("read token: %s %w", f.path, err)}
	}
	if !token.expires.IsZero() && time.Now().After(token.expires) {
		return accessToken{}, &Error{Err: fmt.Errorf("read token: that in %s ended at %s: is the program that renews it running?",
			f.path, token.expires.UTC().Format(time.RFC3339))}
	}
	return token, nil
}

func (f fileSource) refuse(accessToken) {}
func (f fileSource) describe() string   { return "token from " + f.path }
func (f fileSource) lasts() Lasts       { return Lasts{} }

// commandSource is a command that prints a token.
type commandSource struct{ line string }

// commandTimeout is what a command may take, which may have to ask a provider.
const commandTimeout = 30 * time.Second

// token runs the command. What it says on stderr is not shown: a script that traces itself would show the token.
func (c commandSource) token(ctx context.Context) (accessToken, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	output := new(limited)
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", c.line)
	cmd.Stdout = output
	// A group of its own, so that what the shell started ends too.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		return accessToken{}, &Error{Err: fmt.Errorf("run token_command: it took longer than %s, or we were told to stop", commandTimeout)}
	case output.over: // the shell may have its own words for it
		return accessToken{}, &Error{Err: fmt.Errorf("run token_command: it printed more than %d bytes", maxTokenBytes)}
	case err != nil:
		return accessToken{}, &Error{Err: fmt.Errorf("run token_command: %w: run it by hand to see why", err)}
	}
	token, err := parseToken(output.data.Bytes())
	if err != nil {
		return accessToken{}, &Error{Err: fmt.Errorf("run token_command: what it printed %w", err)}
	}
	return token, nil
}

func (c commandSource) refuse(accessToken) {}
func (c commandSource) describe() string   { return "token from a command" }
func (c commandSource) lasts() Lasts       { return Lasts{} }

// limited keeps what is written, and refuses to be written more than a token can have.
type limited struct {
	data bytes.Buffer
	over bool
}

func (l *limited) Write(p []byte) (int, error) {
	if l.data.Len()+len(p) > maxTokenBytes {
		l.over = true
		return 0, errors.New("too much")
	}
	return l.data.Write(p)
}

// parseToken reads a bare token, or the JSON that token endpoints and x/oauth2 write. Errors read on after where the token is from, and do not
// show it.
func parseToken(data []byte) (accessToken, error) {
	if len(data) > maxTokenBytes {
		return accessToken{}, fmt.Errorf("is larger than %d bytes", maxTokenBytes)
	}
	text := strings.TrimSpace(string(data))
	if !strings.HasPrefix(text, "{") {
		return accessToken{access: text}, checkToken(text)
	}
	var fields struct {
		Access  string    `json:"access_token"`
		Expires time.Time `json:"expiry"`
	}
	if err := json.Unmarshal([]byte(text), &fields); err != nil {
		return accessToken{}, errors.New("is neither a token nor JSON with access_token and expiry (RFC 3339)")
	}
	return accessToken{access: fields.Access, expires: fields.Expires}, checkToken(fields.Access)
}

// checkToken refuses what cannot be a token (RFC 6750 §2.1) and would break out of what we write around it.
func checkToken(text string) error {
	switch {
	case text == "":
		return errors.New("is empty")
	case len(text) > maxTokenBytes:
		return fmt.Errorf("is larger than %d bytes", maxTokenBytes)
	}
	for _, c := range []byte(text) {
		if c <= ' ' || c > '~' {
			return errors.New("is no token: it has a character that no token has")
		}
	}
	return nil
}
