package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"spamtraps.internal/imap-collector/internal/imaptest"
	"spamtraps.internal/libs/daemon"
	"spamtraps.internal/libs/rig"
)

// buffer is a stream that is written to from several goroutines.
type buffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// runOnce runs the program on mailboxes until it ends.
func runOnce(t *testing.T, url, mailboxes string, args ...string) (code int, stdout, log string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "mailboxes.yml")
	if err := os.WriteFile(path, []byte(mailboxes), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errs buffer
	p := &program{stdout: &out}
	code = daemon.Main(p.service(), daemon.Process{
		Args: append([]string{"-m", path}, args...), Stdout: &out, Stderr: &errs,
		Env: []string{"AMQP_URL=" + url, "ADMIN_ADDR=127.0.0.1:0", "IMAP_STATE=" + t.TempDir(), "LOG_FORMAT=json"},
	})
	return code, out.String(), errs.String()
}

func boxAt(server *imaptest.Memory, more string) string {
	host, port, _ := net.SplitHostPort(server.Addr)
	return fmt.Sprintf("- {username: %s, host: %s, port: %s, tls: none, %s}\n", imaptest.Username, host, port, more)
}

// A run that ends tells by its exit code, and by its table, whether each mailbox was emptied of what was asked.
func TestRunsThatEnd(t *testing.T) {
	broker := rig.SharedBroker(t)
	server := func() *imaptest.Memory {
		s := imaptest.NewMemory(t, imaptest.Caps())
		s.Deliver(t, "INBOX", "Subject: 1\r\n\r\n", "Subject: 2\r\n\r\n"+strings.Repeat("x", 3000), "Subject: 3\r\n\r\n")
		return s
	}
	const password = "password: " + imaptest.Password
	seen := func(s *imaptest.Memory) (count int) {
		for _, mail := range s.Mails(t, "INBOX") {
			if mail.Seen() {
				count++
			}
		}
		return count
	}

	t.Run("emptied", func(t *testing.T) {
		s := server()
		code, stdout, log := runOnce(t, broker.URL(), boxAt(s, password))
		if code != daemon.ExitOK || seen(s) != 3 || !strings.Contains(strings.Join(strings.Fields(stdout), " "), "1 mailboxes 3 3") {
			t.Errorf("exit code %d, %d seen\n%s\n%s", code, seen(s), stdout, log)
		}
	})
	t.Run("too large", func(t *testing.T) {
		s := server()
		code, stdout, log := runOnce(t, broker.URL(), boxAt(s, password+", max_message_bytes: 1KiB"))
		if code != int(exitOversize) || seen(s) != 2 || !strings.Contains(stdout, "all but what is too large") {
			t.Errorf("exit code %d, %d seen\n%s\n%s", code, seen(s), stdout, log)
		}
	})
	t.Run("one of two", func(t *testing.T) {
		s, closed := server(), server()
		code, stdout, log := runOnce(t, broker.URL(), boxAt(s, password+", name: good, max_message_bytes: 1KiB")+boxAt(closed, "password: hunter2, name: bad, id: bad"))
		if code != daemon.ExitFailed || seen(s) != 2 || seen(closed) != 0 || !strings.Contains(stdout, "bad: ") || !strings.Contains(stdout, "what to do: ") {
			t.Errorf("exit code %d, %d and %d seen\n%s\n%s", code, seen(s), seen(closed), stdout, log)
		}
		if strings.Contains(stdout+log, "hunter2") || strings.Contains(stdout+log, imaptest.Password) {
			t.Error("a password is shown")
		}
	})
	t.Run("delete", func(t *testing.T) {
		s := server()
		code, stdout, log := runOnce(t, broker.URL(), boxAt(s, password), "-a", "-d")
		if left := len(s.Mails(t, "INBOX")); code != daemon.ExitOK || left != 0 {
			t.Errorf("exit code %d, %d left\n%s\n%s", code, left, stdout, log)
		}
	})
}
