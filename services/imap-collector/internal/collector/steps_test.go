package collector

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/rabbitmq/amqp091-go"

	"spamtraps.internal/imap-collector/internal/account"
	"spamtraps.internal/imap-collector/internal/imaptest"
	"spamtraps.internal/imap-collector/internal/state"
)

const (
	stepMails  = 13
	stepWindow = 4
)

var errKilled = errors.New("killed")

// death ends a collector as kill -9 would, as far as anybody else can tell: from one moment on nothing that it does reaches the server or the broker.
type death struct {
	server *imaptest.Memory
	broker *imaptest.Broker
	once   sync.Once
	dead   chan struct{}
}

func (d *death) die() {
	d.once.Do(func() {
		d.broker.Answer(func(ctx context.Context, _ amqp091.Publishing) error {
			<-ctx.Done()
			return ctx.Err()
		})
		d.server.Refuse(true)
		close(d.dead)
	})
}

// A collector that is killed at any step, before or after any command and any confirm, and started again: nothing is lost, what comes twice is no more than
// the window, nobody else's mail is touched, and at the end the mailbox is as if nothing had happened.
func TestKilledAtEveryStep(t *testing.T) {
	for _, c := range []struct {
		name  string
		caps  imap.CapSet
		fetch account.FetchMode
		after account.After
	}{
		{"seen", imaptest.Caps(), account.FetchUnseen, account.After{Kind: account.AfterSeen}},
		{"delete", imaptest.Caps(), account.FetchUnseen, account.After{Kind: account.AfterDelete}},
		{"delete without UIDPLUS", without(imap.CapUIDPlus), account.FetchAll, account.After{Kind: account.AfterDelete}},
		{"move", imaptest.Caps(), account.FetchUnseen, account.After{Kind: account.AfterMove, Folder: "Archive"}},
		{"move without MOVE", without(imap.CapMove), account.FetchUnseen, account.After{Kind: account.AfterMove, Folder: "Archive"}},
		{"nothing", imaptest.Caps(), account.FetchNew, account.After{Kind: account.AfterNothing}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			change := func(a *account.Account) { a.Fetch, a.After = c.fetch, c.after }
			for step := 1; ; step++ {
				if !killedAt(t, c.caps, change, step, "command") {
					break
				}
			}
			for confirm := 1; confirm <= stepMails; confirm++ {
				killedAt(t, c.caps, change, confirm, "before the confirm")
				killedAt(t, c.caps, change, confirm, "after the confirm")
			}
		})
	}
}

// killedAt runs a collector up to a step and another one to the end. It returns false when the first came to its end before the step.
func killedAt(t *testing.T, caps imap.CapSet, change func(*account.Account), step int, what string) bool {
	t.Helper()
	server := imaptest.NewMemory(t, caps)
	bodies := mails(stepMails, 300)
	server.Deliver(t, "INBOX", bodies...)
	server.Deliver(t, "INBOX", "Subject: somebody else's\r\n\r\n")
	server.Mark(t, "INBOX", stepMails+1, `\Seen`, `\Deleted`)
	broker, path := &imaptest.Broker{}, t.TempDir()
	d := &death{server: server, broker: broker, dead: make(chan struct{})}
	switch what {
	case "command":
		server.OnCommand(func(n int, _ string) bool {
			if n == step {
				d.die()
			}
			return n < step
		})
	case "before the confirm":
		confirms := counter()
		broker.Answer(func(context.Context, amqp091.Publishing) error {
			if confirms() == step {
				d.die()
				return errKilled
			}
			return nil
		})
	default:
		confirms := counter()
		broker.Answer(func(_ context.Context, m amqp091.Publishing) error {
			if confirms() == step {
				broker.Store(m)
				d.die()
				return errKilled
			}
			return nil
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		select {
		case <-d.dead:
			cancel()
		case <-ctx.Done():
		}
	}()
	a := imaptest.Account(server.Addr, change)
	cfg := Config{Window: stepWindow, StopGrace: time.Millisecond}
	store := open(t, path)
	_, err := collect(t, cfg, broker, store, a).Once(ctx)
	cancel()
	_ = store.Close()
	select {
	case <-d.dead:
	default:
		if err != nil {
			t.Fatalf("%s %d: %v", what, step, err)
		}
		return false
	}

	server.OnCommand(nil)
	broker.Answer(nil)
	server.Refuse(false)
	store = open(t, path)
	defer func() { _ = store.Close() }()
	result := once(t, collect(t, cfg, broker, store, a))
	if result.Err != nil {
		t.Errorf("%s %d: %v", what, step, result.Err)
	}
	check(t, fmt.Sprintf("%s %d", what, step), server, broker, bodies, &a)
	return true
}

func check(t *testing.T, where string, server *imaptest.Memory, broker *imaptest.Broker, bodies []string, a *account.Account) {
	t.Helper()
	copies, twice := broker.Copies(), 0
	ids := make(map[string]string)
	for _, m := range broker.Received() {
		if id, known := ids[string(m.Body)]; known && id != m.MessageId {
			t.Errorf("%s: %.20q has two message ids", where, m.Body)
		}
		ids[string(m.Body)] = m.MessageId
	}
	for _, body := range bodies {
		if copies[body] == 0 {
			t.Errorf("%s: %.20q is lost", where, body)
		}
		twice += copies[body] - 1
	}
	if twice > stepWindow {
		t.Errorf("%s: %d mails came twice, and the window is %d", where, twice, stepWindow)
	}
	inbox := server.Mails(t, "INBOX")
	if _, there := inbox[stepMails+1]; !there {
		t.Errorf("%s: somebody else's mail is gone", where)
	}
	for uid, mail := range inbox {
		if uid <= stepMails && a.After.Kind != account.AfterNothing && !mail.Seen() {
			t.Errorf("%s: mail %d is left as it was", where, uid)
		}
	}
	if a.After.Kind == account.AfterMove {
		archived := make(map[string]bool)
		for _, mail := range server.Mails(t, "Archive") {
			archived[mail.Body] = true
		}
		for _, body := range bodies {
			if !archived[body] {
				t.Errorf("%s: %.20q is not in the archive", where, body)
			}
		}
	}
}

func open(t *testing.T, path string) *state.Store {
	t.Helper()
	return newStore(t, path)
}

func counter() func() int {
	var mu sync.Mutex
	n := 0
	return func() int {
		mu.Lock()
		defer mu.Unlock()
		n++
		return n
	}
}
