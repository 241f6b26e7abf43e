package collector

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"spamtraps.internal/imap-collector/internal/account"
	"spamtraps.internal/imap-collector/internal/imaptest"
	"spamtraps.internal/imap-collector/internal/state"
)

// logged is what the log said.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// unusual is what it said beside what it says of each mail.
func (l *logged) unusual() string {
	var lines []string
	for line := range strings.Lines(l.String()) {
		if !strings.Contains(line, `"received"`) && !strings.Contains(line, `"confirmed"`) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}

// rigged is a collector with its broker and its log.
type rigged struct {
	*Collector
	broker *imaptest.Broker
	log    *logged
}

func newStore(t testing.TB, path string) *state.Store {
	t.Helper()
	store, err := state.Open(path, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	return store
}

// collect returns a collector that waits for nothing.
func collect(t testing.TB, cfg Config, broker *imaptest.Broker, store *state.Store, accounts ...account.Account) *rigged {
	t.Helper()
	log := &logged{}
	c := New(cfg, Identity{App: "imap-collector/test", Collector: "imap-collector", Sensor: "sensor-1"}, accounts, broker, store,
		zerolog.New(log), prometheus.NewRegistry())
	c.shared.jitter = func(time.Duration) time.Duration { return 0 }
	for _, m := range c.mailboxes {
		m.pauses.jitter = c.shared.jitter
	}
	t.Cleanup(func() {
		if strings.Contains(log.String(), imaptest.Password) {
			t.Errorf("the password is in the log:\n%s", log)
		}
		if t.Failed() {
			t.Logf("log:\n%s", log.unusual())
		}
	})
	return &rigged{Collector: c, broker: broker, log: log}
}

// once runs a collector through one mailbox.
func once(t testing.TB, r *rigged) Result {
	t.Helper()
	results, err := r.Once(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	memory, window := r.shared.memory.load(), r.shared.window.load()
	if memory != 0 || window != 0 {
		t.Errorf("%d bytes of memory and %d places of the window are still taken", memory, window)
	}
	return results[0]
}

func mails(n, size int) []string {
	bodies := make([]string, n)
	for i := range bodies {
		head := fmt.Sprintf("Subject: mail %d\r\n\r\n", i)
		bodies[i] = head + strings.Repeat("x", max(0, size-len(head)))
	}
	return bodies
}

// expectAll checks that each body was published exactly so often.
func expectAll(t testing.TB, broker *imaptest.Broker, bodies []string, copies int) {
	t.Helper()
	got := broker.Copies()
	for _, body := range bodies {
		if got[body] != copies {
			t.Errorf("%.20q: %d copies, want %d", body, got[body], copies)
		}
		delete(got, body)
	}
	for body := range got {
		t.Errorf("%.40q was published, and lies in no mailbox", body)
	}
}

func TestOnceMarksSeen(t *testing.T) {
	server := imaptest.NewMemory(t, imaptest.Caps())
	bodies := mails(300, 2000)
	server.Deliver(t, "INBOX", bodies...)
	r := collect(t, Config{}, &imaptest.Broker{}, newStore(t, ""), imaptest.Account(server.Addr))
	result := once(t, r)
	if result.Err != nil || result.Found != 300 || result.Published != 300 {
		t.Errorf("got %+v", result)
	}
	expectAll(t, r.broker, bodies, 1)
	for uid, mail := range server.Mails(t, "INBOX") {
		if !mail.Seen() {
			t.Errorf("mail %d is not marked", uid)
		}
	}
	again := once(t, collect(t, Config{}, r.broker, newStore(t, ""), imaptest.Account(server.Addr)))
	if again.Published != 0 || again.Err != nil {
		t.Errorf("the second run: %+v", again)
	}
}

func without(caps ...imap.Cap) imap.CapSet {
	set := imaptest.Caps()
	for _, c := range caps {
		delete(set, c)
	}
	return set
}

// One mail to two mailboxes, each with its own address in it, is one campaign.
func TestContentHashLeavesTheMailboxOut(t *testing.T) {
	var hashes []any
	for _, username := range []string{"first@trap.example", "second@trap.example"} {
		server := imaptest.NewMemory(t, imaptest.Caps())
		server.Deliver(t, "INBOX", "To: "+username+"\r\nSubject: win\r\n\r\nhttp://spam.example/?who="+username+"\r\n")
		r := collect(t, Config{}, &imaptest.Broker{}, newStore(t, ""), imaptest.Account(server.Addr))
		r.mailboxes[0].account.Username = username // the login was made from another
		once(t, r)
		for _, m := range r.broker.Received() {
			hashes = append(hashes, m.Headers["content_hash"])
		}
	}
	if len(hashes) != 2 || hashes[0] != hashes[1] || hashes[0] == "" || hashes[0] == nil {
		t.Errorf("got %v", hashes)
	}
}
