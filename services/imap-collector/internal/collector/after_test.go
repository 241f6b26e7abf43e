package collector

import (
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"

	"spamtraps.internal/imap-collector/internal/account"
	"spamtraps.internal/imap-collector/internal/imaptest"
)

// What becomes of mails after the confirm, in each mode and with each way that a server offers.
func TestAfter(t *testing.T) {
	for _, c := range []struct {
		name      string
		caps      imap.CapSet
		after     account.After
		expunge   bool
		left      int // in INBOX
		archived  int
		sent, not string // commands
	}{
		{name: "delete", after: account.After{Kind: account.AfterDelete}, left: 1, sent: "UID EXPUNGE"},
		{name: "delete without UIDPLUS only marks", caps: without(imap.CapUIDPlus), after: account.After{Kind: account.AfterDelete}, left: 41, sent: `(\Seen \Deleted)`, not: "EXPUNGE"},
		{name: "delete without UIDPLUS, all", caps: without(imap.CapUIDPlus), after: account.After{Kind: account.AfterDelete}, expunge: true, left: 0, sent: "EXPUNGE"},
		{name: "move", after: account.After{Kind: account.AfterMove, Folder: "Archive"}, left: 1, archived: 40, sent: "UID MOVE"},
		{name: "move without MOVE", caps: without(imap.CapMove), after: account.After{Kind: account.AfterMove, Folder: "Archive"}, left: 1, archived: 40, sent: "UID COPY", not: "MOVE"},
		{name: "move without MOVE and UIDPLUS", caps: without(imap.CapMove, imap.CapUIDPlus), after: account.After{Kind: account.AfterMove, Folder: "Archive"}, left: 41, archived: 40, sent: "UID COPY", not: "EXPUNGE"},
		{name: "nothing", after: account.After{Kind: account.AfterNothing}, left: 41, sent: "EXAMINE", not: "STORE"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.caps == nil {
				c.caps = imaptest.Caps()
			}
			server := imaptest.NewMemory(t, c.caps)
			bodies := mails(40, 500)
			server.Deliver(t, "INBOX", bodies...)
			server.Deliver(t, "INBOX", "Subject: of somebody else, seen and deleted\r\n\r\n")
			server.Mark(t, "INBOX", 41, `\Seen`, `\Deleted`)
			broker, store := &imaptest.Broker{}, newStore(t, t.TempDir())
			a := imaptest.Account(server.Addr, func(a *account.Account) { a.After, a.Expunge = c.after, c.expunge })
			result := once(t, collect(t, Config{}, broker, store, a))
			if result.Err != nil || result.Published != 40 || result.Unmarked != 0 {
				t.Errorf("got %+v", result)
			}
			expectAll(t, broker, bodies, 1)
			if n := len(server.Mails(t, "INBOX")); n != c.left {
				t.Errorf("%d mails are left, want %d", n, c.left)
			}
			if c.archived > 0 {
				if n := len(server.Mails(t, "Archive")); n != c.archived {
					t.Errorf("%d mails are in the archive, want %d", n, c.archived)
				}
			}
			commands := strings.Join(server.Commands(), "\n")
			if !strings.Contains(commands, c.sent) || c.not != "" && strings.Contains(commands, c.not) {
				t.Errorf("want %q and not %q among the commands:\n%s", c.sent, c.not, commands)
			}
			once(t, collect(t, Config{}, broker, store, a))
			expectAll(t, broker, bodies, 1)
		})
	}
}

// Mail that cannot be marked is published once all the same, also after a restart.
func TestUnmarkable(t *testing.T) {
	server := imaptest.NewMemory(t, without(imap.CapMove))
	bodies := mails(40, 500)
	server.Deliver(t, "INBOX", bodies...)
	server.Answer(func(line string) string {
		if strings.Contains(line, "STORE") {
			return "NO [NOPERM] not allowed"
		}
		return ""
	})
	broker, store := &imaptest.Broker{}, newStore(t, t.TempDir())
	a := imaptest.Account(server.Addr)
	r := collect(t, Config{}, broker, store, a)
	if result := once(t, r); result.Unmarked != 40 || result.Published != 40 || result.Err != nil {
		t.Errorf("got %+v", result)
	}
	if !strings.Contains(r.log.String(), "NOPERM") {
		t.Error("the log does not say why")
	}
	again := once(t, collect(t, Config{}, broker, store, a))
	if again.Published != 0 {
		t.Errorf("the second run: %+v", again)
	}
	server.Answer(nil)
	once(t, collect(t, Config{}, broker, store, a))
	expectAll(t, broker, bodies, 1)
	for uid, mail := range server.Mails(t, "INBOX") {
		if !mail.Seen() {
			t.Errorf("mail %d is not marked though the server lets us now", uid)
		}
	}
}

// A mail that somebody marks unseen again is not published again while the process runs, nor is one whose mark did not stick.
func TestMarkThatDoesNotStick(t *testing.T) {
	server := imaptest.NewMemory(t, imaptest.Caps())
	bodies := mails(10, 500)
	server.Deliver(t, "INBOX", bodies...)
	server.Answer(func(line string) string {
		if strings.Contains(line, "STORE") {
			return "OK Store completed."
		}
		return ""
	})
	broker, store := &imaptest.Broker{}, newStore(t, t.TempDir())
	a := imaptest.Account(server.Addr)
	for range 3 {
		if result := once(t, collect(t, Config{}, broker, store, a)); result.Err != nil {
			t.Errorf("got %+v", result)
		}
	}
	expectAll(t, broker, bodies, 1)
}

func TestFetchAllAndNew(t *testing.T) {
	server := imaptest.NewMemory(t, imaptest.Caps())
	bodies := mails(20, 500)
	server.Deliver(t, "INBOX", bodies...)
	server.Mark(t, "INBOX", 3, `\Seen`)
	broker, store := &imaptest.Broker{}, newStore(t, t.TempDir())
	all := imaptest.Account(server.Addr, func(a *account.Account) { a.Fetch = account.FetchAll })
	once(t, collect(t, Config{}, broker, store, all))
	expectAll(t, broker, bodies, 1)
	fresh := imaptest.Account(server.Addr, func(a *account.Account) { a.Fetch = account.FetchNew })
	once(t, collect(t, Config{}, broker, store, fresh))
	expectAll(t, broker, bodies, 2)
	more := mails(25, 500)[20:]
	server.Deliver(t, "INBOX", more...)
	server.Mark(t, "INBOX", 22, `\Seen`) // somebody reads the webmail
	if result := once(t, collect(t, Config{}, broker, store, fresh)); result.Published != 5 {
		t.Errorf("got %+v", result)
	}
	if !slices.Contains(bodiesOf(broker), more[1]) {
		t.Error("what somebody has read was not collected")
	}
}

func bodiesOf(broker *imaptest.Broker) []string {
	var bodies []string
	for _, m := range broker.Received() {
		bodies = append(bodies, string(m.Body))
	}
	return bodies
}
