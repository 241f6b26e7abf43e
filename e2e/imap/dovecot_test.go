package imap

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"spamtraps.internal/libs/envelope"
	"spamtraps.internal/libs/rig"
)

// spam returns a mail unlike any other of its test.
func spam(of string, number int) []byte {
	return fmt.Appendf(nil, "From: spam@x.example\r\nSubject: %s %d\r\n\r\n%s", of, number, strings.Repeat("buy this\r\n", 20+number%50))
}

// entry is a mailbox at a Dovecot, over TLS unless more says otherwise.
func entry(d *rig.Dovecot, name, user string, more ...string) mailbox {
	box := mailbox{"name: " + name, "id: " + name, "username: " + user, "host: 127.0.0.1"}
	add := func(key, value string) {
		if !slices.ContainsFunc(more, func(line string) bool { return strings.HasPrefix(line, key+":") }) {
			box = append(box, key+": "+value)
		}
	}
	add("port", fmt.Sprint(d.TLSPort))
	add("tls", "implicit")
	if !slices.Contains(more, "check_cert: false") && !slices.Contains(more, "tls: none") {
		add("ca_file", d.CAFile)
	}
	if !slices.ContainsFunc(more, func(line string) bool { return strings.HasPrefix(line, "oauth:") }) {
		add("password", d.Password)
	}
	for _, line := range more {
		if line != "ca_file:" {
			box = append(box, line)
		}
	}
	return box
}

// arrivesAll waits until a mailbox has had this many mails published.
func arrivesAll(t *testing.T, arrived *sink, mailbox string, mails int) {
	t.Helper()
	rig.Eventually(t, time.Minute, fmt.Sprintf("%d mails of %s arrive", mails, mailbox), func() bool { return len(arrived.of(mailbox)) >= mails })
}

// seenAll waits until nothing in INBOX is unseen.
func seenAll(t *testing.T, d *rig.Dovecot, user string) {
	t.Helper()
	rig.Eventually(t, time.Minute, "all in INBOX of "+user+" is seen", func() bool {
		_, unseen := d.Count(user, "INBOX")
		return unseen == 0
	})
}

// Each way to make a connection private and to prove who one is, and each way in which that fails: in one process, where the ones that fail
// are no trouble to the others.
func TestTLSAndLogins(t *testing.T) {
	t.Parallel()
	broker, d := rig.SharedBroker(t), rig.SharedDovecot(t)
	open := rig.OwnDovecot(t, rig.WithEnv("DOVECOT_CLEARTEXT=yes"))
	otherCA := rig.NewCA(t).File
	token := filepath.Join(t.TempDir(), "token")
	user := d.User("tls")
	if err := os.WriteFile(token, []byte(d.Token(user, time.Now().Add(time.Hour))+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	stale := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(stale, []byte(d.Token(user, time.Now().Add(-time.Hour))+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	plain := fmt.Sprintf("port: %d", d.Port)
	tests := []struct {
		name string
		at   *rig.Dovecot
		more []string
		want string // of what is logged; "" means that mail arrives
	}{
		{"implicit", d, nil, ""},
		{"implicit, unverified", d, []string{"check_cert: false"}, ""},
		{"starttls", d, []string{plain, "tls: starttls"}, ""},
		{"starttls, unverified", d, []string{plain, "tls: starttls", "check_cert: false"}, ""},
		{"none", open, []string{fmt.Sprintf("port: %d", open.Port), "tls: none"}, ""},
		{"a token for XOAUTH2", d, []string{"oauth: {token_file: " + token + ", mechanism: XOAUTH2}"}, ""},
		{"a token for OAUTHBEARER", d, []string{"oauth: {token_file: " + token + ", mechanism: OAUTHBEARER}"}, ""},
		{"none where the server wants TLS", d, []string{plain, "tls: none"}, "TLS"},
		{"another authority", d, []string{"ca_file: " + otherCA}, "certificate"},
		{"starttls, another authority", d, []string{plain, "tls: starttls", "ca_file: " + otherCA}, "certificate"},
		{"the system's authorities", d, []string{"ca_file:"}, "certificate"},
		{"TLS at the port without", d, []string{plain}, "does not speak TLS here"},
		{"starttls at the port with TLS", d, []string{"tls: starttls"}, ""},
		{"a wrong password", d, []string{"password: wrong-secret"}, "AUTHENTICATIONFAILED"},
		{"a token that has expired", d, []string{"oauth: {token_file: " + stale + ", mechanism: XOAUTH2}"}, "log in"},
		{"nobody listens", d, []string{"port: 1"}, "refused"},
	}
	boxes := make([]mailbox, len(tests))
	users := make([]string, len(tests))
	for i, test := range tests {
		users[i] = user
		if !strings.Contains(test.name, "token") {
			users[i] = test.at.User("tls")
		} else if test.want == "" {
			users[i] = d.User("tls")
			file := filepath.Join(t.TempDir(), "token")
			if err := os.WriteFile(file, []byte(d.Token(users[i], time.Now().Add(time.Hour))), 0o600); err != nil {
				t.Fatal(err)
			}
			test.more = []string{strings.Replace(test.more[0], token, file, 1)}
		}
		test.at.Deliver(users[i], "INBOX", spam(test.name, 1))
		boxes[i] = entry(test.at, test.name, users[i], test.more...)
	}
	arrived := newSink(t, broker)
	collector := launch(t, racing(t), settings(t, broker.URL(), mailboxes(t, boxes...)))
	for i, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			switch {
			case test.name == "starttls at the port with TLS": // each side waits for the other, until it gives up
			case test.want == "":
				arrivesAll(t, arrived, test.name, 1)
				seenAll(t, test.at, users[i])
			default:
				rig.Eventually(t, time.Minute, "the log says "+test.want, func() bool {
					return slices.ContainsFunc(collector.log.events(test.name), func(e event) bool {
						return e.text("level") != "debug" && strings.Contains(fmt.Sprint(e), test.want)
					})
				})
				if n := len(arrived.of(test.name)); n > 0 {
					t.Errorf("%d mails arrived", n)
				}
			}
		})
	}
	for _, secret := range []string{d.Password, "wrong-secret", open.Password, strings.Split(d.Token(user, time.Now()), ".")[0] + "."} {
		if strings.Contains(collector.log.String(), secret) {
			t.Errorf("the log shows a secret: %s", secret)
		}
	}
	if code := collector.terminate(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	arrived.check()
}

// What becomes of mail once the broker has it, in INBOX and in Junk, and that it stays so over a restart.
func TestAfterModes(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"mdbox", "maildir"} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			broker := rig.SharedBroker(t)
			d := rig.OwnDovecot(t, rig.WithEnv("DOVECOT_FORMAT="+format))
			testAfterModes(t, broker, d)
		})
	}
}

func testAfterModes(t *testing.T, broker *rig.Broker, d *rig.Dovecot) {
	t.Helper()
	const each = 5
	modes := []struct {
		name    string
		more    []string
		left    int  // in INBOX, of each+1 mails, of which another client has deleted one
		unseen  int  // of those left
		mail    int  // that arrive
		forever bool // each new run publishes all again, as asked
	}{
		{name: "seen", left: each + 1, mail: 2 * each},
		{name: "delete", more: []string{"after: delete"}, left: 1, mail: 2 * each},
		{name: "move", more: []string{"after: move:Archive/Trap"}, left: 1, mail: 2 * each},
		{name: "nothing", more: []string{"after: nothing"}, left: each + 1, unseen: each, mail: 2 * each},
		{name: "new", more: []string{"fetch: new", "after: nothing"}, left: each + 1, unseen: each, mail: 2 * each},
	}
	users := make(map[string]string)
	var boxes []mailbox
	for _, mode := range modes {
		user := d.User(mode.name)
		users[mode.name] = user
		for i := range each {
			d.Deliver(user, "INBOX", spam("inbox "+mode.name, i))
			d.Deliver(user, "Junk", spam("junk "+mode.name, i))
		}
		d.Deliver(user, "INBOX", spam("deleted "+mode.name, 1))
		d.Do(user, "SELECT INBOX", fmt.Sprintf(`UID STORE %d +FLAGS.SILENT (\Seen \Deleted)`, each+1))
		boxes = append(boxes, entry(d, mode.name, user, mode.more...))
	}
	env := settings(t, broker.URL(), mailboxes(t, boxes...))
	arrived := newSink(t, broker)
	for run := range 2 {
		collector := launch(t, racing(t), env)
		for _, mode := range modes {
			arrivesAll(t, arrived, mode.name, mode.mail)
			user := users[mode.name]
			rig.Eventually(t, time.Minute, fmt.Sprintf("INBOX of %s holds %d mails, %d of them unseen", mode.name, mode.left, mode.unseen), func() bool {
				messages, unseen := d.Count(user, "INBOX")
				// With `fetch: new` the mail that another client has seen is as good as any; it may be among what arrives.
				return messages == mode.left && (unseen == mode.unseen || mode.name == "new")
			})
			if mode.name == "move" {
				if moved := d.Mails(user, "Archive/Trap"); len(moved) != 2*each {
					t.Errorf("%d mails were moved", len(moved))
				}
			}
			for from, mail := range arrived.of(mode.name) {
				if mail.copies != 1 {
					t.Errorf("run %d: mail %d of %s in %s arrived %d times", run, from.uid, mode.name, from.folder, mail.copies)
				}
				if mail.junk != (from.folder == "Junk") {
					t.Errorf("junk is %v for %s", mail.junk, from.folder)
				}
				if mail.messageID != envelope.IMAPMessageID(from.mailbox, from.folder, from.uidValidity, from.uid) {
					t.Errorf("message id %s", mail.messageID)
				}
			}
		}
		// The second run has looked at everything when it waits for news.
		rig.Eventually(t, time.Minute, "all mailboxes are looked at", func() bool {
			status, text := collector.get("/readyz")
			return status == 200 && !strings.Contains(text, "not looked")
		})
		if code := collector.terminate(); code != 0 {
			t.Errorf("exit code %d", code)
		}
	}
	arrived.check()
}

// Mail that arrives while nothing else is to be done is published because the server says so: the next look would be in ten minutes.
func TestNewMailIsNewsAtOnce(t *testing.T) {
	t.Parallel()
	broker, d := rig.SharedBroker(t), rig.SharedDovecot(t)
	user := d.User("idle")
	arrived := newSink(t, broker)
	launch(t, racing(t), settings(t, broker.URL(), mailboxes(t, entry(d, "idle", user, "poll_interval: 10m"))))
	for number := range 5 {
		d.Deliver(user, "INBOX", spam("idle", number))
		began := time.Now()
		arrivesAll(t, arrived, "idle", number+1)
		t.Logf("mail %d arrived %s after it was delivered", number, time.Since(began).Round(time.Millisecond))
		seenAll(t, d, user)
	}
	arrived.check()
}

// A restore from a backup: other UIDs stand for the same mails. Those that were not marked come once more, under a new message id, and none is missed.
func TestUIDValidityChanges(t *testing.T) {
	t.Parallel()
	broker, d := rig.SharedBroker(t), rig.SharedDovecot(t)
	seen, nothing := d.User("seen"), d.User("nothing")
	for number := range 5 {
		d.Deliver(seen, "INBOX", spam("seen", number))
		d.Deliver(nothing, "INBOX", spam("nothing", number))
	}
	arrived := newSink(t, broker)
	collector := launch(t, racing(t), settings(t, broker.URL(), mailboxes(t, entry(d, "seen", seen), entry(d, "nothing", nothing, "after: nothing"))))
	arrivesAll(t, arrived, "seen", 5)
	arrivesAll(t, arrived, "nothing", 5)
	seenAll(t, d, seen)
	for _, user := range []string{seen, nothing} {
		d.SetUIDValidity(user, "INBOX", 4_000_000_000)
		d.Deliver(user, "INBOX", spam("after", len(user)))
	}
	arrivesAll(t, arrived, "seen", 6)
	arrivesAll(t, arrived, "nothing", 11)
	if n := len(arrived.of("seen")); n != 6 {
		t.Errorf("%d mails arrived of those that were marked", n)
	}
	if !strings.Contains(collector.log.String(), "4000000000") {
		t.Error("the log does not tell of the new UIDVALIDITY")
	}
	arrived.check()
}

// A mailbox that is full can still be marked; a move within it needs no room, and one that needs it is refused without loss.
func TestQuota(t *testing.T) {
	t.Parallel()
	broker := rig.SharedBroker(t)
	d := rig.OwnDovecot(t, rig.WithEnv("DOVECOT_QUOTA=300K"))
	large := bytes.Repeat([]byte("all of it spam \r\n"), 14_000)
	seen, move := d.User("seen"), d.User("move")
	for _, user := range []string{seen, move} {
		d.Deliver(user, "INBOX", large)
	}
	arrived := newSink(t, broker)
	launch(t, racing(t), settings(t, broker.URL(), mailboxes(t, entry(d, "seen", seen), entry(d, "move", move, "after: move:Done"))))
	arrivesAll(t, arrived, "seen", 1)
	arrivesAll(t, arrived, "move", 1)
	seenAll(t, d, seen)
	rig.Eventually(t, time.Minute, "the mail is moved", func() bool { return len(d.Mails(move, "Done")) == 1 && len(d.Mails(move, "INBOX")) == 0 })
	arrived.check()
}

// A folder in which nothing can be changed: each mail is published once, also over a restart.
func TestReadOnlyFolder(t *testing.T) {
	t.Parallel()
	broker, d := rig.SharedBroker(t), rig.SharedDovecot(t)
	user := d.User("readonly")
	for number := range 10 {
		d.Deliver(user, "INBOX", spam("readonly", number))
	}
	d.SetReadOnly(user, "INBOX", true)
	env := settings(t, broker.URL(), mailboxes(t, entry(d, "readonly", user)))
	arrived := newSink(t, broker)
	first := launch(t, racing(t), env)
	arrivesAll(t, arrived, "readonly", 10)
	d.Kick(user)
	// What comes after the reconnect comes after the search in which the old mails would have been found again.
	d.Deliver(user, "Junk", spam("readonly", 100))
	arrivesAll(t, arrived, "readonly", 11)
	if code := first.terminate(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	launch(t, racing(t), env)
	d.Deliver(user, "Junk", spam("readonly", 101))
	arrivesAll(t, arrived, "readonly", 12)
	if mails, duplicates := arrived.count(); mails != 12 || duplicates != 0 {
		t.Errorf("%d mails, %d duplicates", mails, duplicates)
	}
	if _, unseen := d.Count(user, "INBOX"); unseen != 10 {
		t.Errorf("%d of 10 mails are unseen", unseen)
	}
	arrived.check()
}

// Two collectors on one mailbox: nothing is lost, and what comes twice has the same message id.
func TestTwoCollectorsOnOneMailbox(t *testing.T) {
	t.Parallel()
	broker, d := rig.SharedBroker(t), rig.SharedDovecot(t)
	user := d.User("two")
	const count = 400
	box := mailboxes(t, entry(d, "two", user))
	arrived := newSink(t, broker)
	for range 2 {
		launch(t, racing(t), settings(t, broker.URL(), box))
	}
	for first := 0; first < count; first += 50 {
		d.Import(user, "INBOX", 50, func(i int) []byte { return spam("two", first+i) })
	}
	arrivesAll(t, arrived, "two", count)
	seenAll(t, d, user)
	mails, duplicates := arrived.count()
	t.Logf("%d mails, %d duplicates", mails, duplicates)
	if mails != count || duplicates > count {
		t.Errorf("%d mails, %d duplicates", mails, duplicates)
	}
	arrived.check()
}
