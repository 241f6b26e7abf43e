package command

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"spamtraps.internal/imap-collector/internal/account"
	"spamtraps.internal/imap-collector/internal/config"
	"spamtraps.internal/imap-collector/internal/imaptest"
	"spamtraps.internal/imap-collector/internal/state"
	"spamtraps.internal/libs/daemon"
)

// check runs the command on what a file of mailboxes says.
func check(t *testing.T, yaml string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "mailboxes.yml")
	if err := os.WriteFile(path, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	svc := daemon.Service[config.Config]{Name: "imap-collector", Defaults: config.Defaults, Commands: []daemon.Command[config.Config]{Check()}}
	code = daemon.Main(svc, daemon.Process{Args: append([]string{"check", "-m", path}, args...), Stdout: &out, Stderr: &errs})
	return code, out.String(), errs.String()
}

// entry is a mailbox on a server, as a line of YAML.
func entry(addr string, more ...string) string {
	host, port, _ := net.SplitHostPort(addr)
	return fmt.Sprintf("- {username: %s, password: %s, host: %s, port: %s%s}\n", imaptest.Username, imaptest.Password, host, port,
		strings.Join(append([]string{""}, more...), ", "))
}

// speaker is a server that says something as soon as somebody connects, and listens.
func speaker(t *testing.T, says string) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // a test's
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				_, _ = io.WriteString(conn, says)
				_, _ = io.Copy(io.Discard, conn)
			}()
		}
	}()
	return listener.Addr().String()
}

func TestCheckShowsWhatIsThereAndChangesNothing(t *testing.T) {
	server := imaptest.NewMemory(t, imaptest.Caps())
	server.Deliver(t, "INBOX", "Subject: 1\r\n\r\n", "Subject: 2\r\n\r\n", "Subject: 3\r\n\r\n"+strings.Repeat("x", 5000))
	server.Mark(t, "INBOX", 1, `\Seen`)
	if err := server.User.Create("Spam", nil); err != nil {
		t.Fatal(err)
	}
	server.Deliver(t, "Spam", "Subject: 4\r\n\r\n")
	before := server.Mails(t, "INBOX")
	code, stdout, stderr := check(t, entry(server.Addr, "tls: none", "name: box", "max_message_bytes: 4KiB", `folders: [INBOX, \Junk, 'No*']`))
	if code != daemon.ExitOK || stderr != "" {
		t.Errorf("exit code %d, stderr %s", code, stderr)
	}
	for _, want := range []string{
		"MAILBOX CONNECTION LOGIN FOLDER MAILS UNSEEN TO FETCH box not encrypted PLAIN, password INBOX 3 2 2, but 1 too large",
		`Spam (\Junk by its name) 1 1 1`,
		"box at " + server.Addr + ": fetch unseen, after that seen", "folders: 2 in the mailbox (INBOX, Spam); no No* among them", "IDLE",
		"1 mailboxes, 0 with a problem; 3 mails would be fetched. Nothing was changed.",
	} {
		if !strings.Contains(strings.Join(strings.Fields(stdout), " "), want) {
			t.Errorf("no %q in\n%s", want, stdout)
		}
	}
	after := server.Mails(t, "INBOX")
	for uid := range before {
		if !slices.Equal(before[uid].Flags, after[uid].Flags) {
			t.Errorf("flags of %d were %q, are %q", uid, before[uid].Flags, after[uid].Flags)
		}
	}
	for _, command := range server.Commands() {
		word, _, _ := strings.Cut(command, " ")
		if !slices.Contains([]string{"CAPABILITY", "AUTHENTICATE", "LIST", "EXAMINE", "NOOP", "UID", "LOGOUT"}, word) || strings.Contains(command, "STORE") || strings.Contains(command, "BODY") {
			t.Errorf("it said %s", command)
		}
	}
}

// What was published and is remembered would not be fetched; the state may be in use.
func TestCheckKnowsWhatIsRemembered(t *testing.T) {
	server := imaptest.NewMemory(t, imaptest.Caps())
	server.Deliver(t, "INBOX", "a", "b", "c")
	dir := t.TempDir()
	store, err := state.Open(dir, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	a := imaptest.Account(server.Addr, func(a *account.Account) { a.Fetch = account.FetchNew })
	checker := newChecker(state.Peek(dir, zerolog.Nop()), 0)
	report := checker.one(t.Context(), &a)
	if len(report.Folders) != 1 || report.Folders[0].ToFetch != 3 {
		t.Fatalf("%+v", report)
	}
	uidValidity := uint32(0)
	for validity := range uint32(100) { // the server's first is a small number
		if folder, err := store.Folder(a.ID, "INBOX", validity); err == nil && folder.Add([]uint32{1, 3}) == nil {
			report = newChecker(state.Peek(dir, zerolog.Nop()), 0).one(t.Context(), &a)
			if report.Folders[0].ToFetch == 1 {
				uidValidity = validity
				break
			}
		}
	}
	if uidValidity == 0 {
		t.Errorf("%+v", report)
	}
}

func TestCheckAsJSON(t *testing.T) {
	server := imaptest.NewMemory(t, imaptest.Caps())
	server.Deliver(t, "INBOX", "a")
	bad := strings.Replace(entry(server.Addr, "tls: none", "name: bad"), "username: trap", "username: nobody", 1)
	code, stdout, _ := check(t, entry(server.Addr, "tls: none", "name: good")+bad, "--json")
	decoder := json.NewDecoder(strings.NewReader(stdout))
	var good, other Report
	if err := errors.Join(decoder.Decode(&good), decoder.Decode(&other)); err != nil {
		t.Fatalf("%v in %s", err, stdout)
	}
	if code != daemon.ExitFailed || other.Mailbox != "bad" || other.Problem == nil || other.Problem.Do == "" {
		t.Errorf("exit code %d, %+v", code, other)
	}
	if good.Mailbox != "good" || good.Problem != nil || good.Folders[0].Mails != 1 || good.Folders[0].ToFetch != 1 {
		t.Errorf("%+v", good)
	}
}

func TestCheckOfSome(t *testing.T) {
	server := imaptest.NewMemory(t, imaptest.Caps())
	boxes := entry(server.Addr, "tls: none", "name: one") + strings.Replace(entry(server.Addr, "tls: none", "name: two"), "username: trap", "username: nobody", 1)
	code, stdout, _ := check(t, boxes, "one")
	if code != daemon.ExitOK || strings.Contains(stdout, "two") {
		t.Errorf("exit code %d: %s", code, stdout)
	}
	code, stdout, stderr := check(t, boxes, "three")
	if code != daemon.ExitRefused || stdout != "" || stderr != "imap-collector: check: there is no mailbox \"three\"\n" {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
	code, stdout, _ = check(t, boxes)
	if code != daemon.ExitFailed || !strings.Contains(stdout, "2 mailboxes, 1 with a problem") {
		t.Errorf("exit code %d: %s", code, stdout)
	}
}

// Each mistake that a new user makes, against a server that answers as one does: the text tells what to do.
func TestCheckSaysWhatToDo(t *testing.T) {
	answering := func(command, answer string) func(t *testing.T) string {
		return func(t *testing.T) string {
			t.Helper()
			server := imaptest.NewMemory(t, imaptest.Caps())
			server.Answer(func(line string) string {
				if strings.HasPrefix(line, command) {
					return answer
				}
				return ""
			})
			return server.Addr
		}
	}
	saying := func(text string) func(t *testing.T) string {
		return func(t *testing.T) string { t.Helper(); return speaker(t, text) }
	}
	for _, row := range []struct {
		name   string
		server func(t *testing.T) string
		more   []string
		want   string // of what to do
	}{
		{"wrong password", answering("AUTHENTICATE", "NO [AUTHENTICATIONFAILED] Authentication failed."), nil, "user name or password is wrong"},
		{"Gmail without an app password", answering("AUTHENTICATE", "NO [ALERT] Application-specific password required: https://support.google.com/accounts/answer/185833 (Failure)"), nil, "an application password only"},
		{"IMAP switched off", answering("AUTHENTICATE", "NO [ALERT] Your account is not enabled for IMAP use. Please visit your Gmail settings page and enable your account for IMAP access. (Failure)"), nil, "IMAP is switched off"},
		{"authenticated but not connected", answering("EXAMINE", "BAD User is authenticated but not connected."), nil, "the token is good, but this mailbox is not open to it"},
		{"throttled", answering("AUTHENTICATE", "NO [LIMIT] Too many simultaneous connections. (Failure)"), nil, "the provider limits logins"},
		{"locked", answering("AUTHENTICATE", "NO Too many failed login attempts, account temporarily locked"), nil, "locked the account"},
		{"no folder", answering("EXAMINE", `NO [NONEXISTENT] Unknown Mailbox`), nil, "there is no folder of this name"},
		{"POP3", saying("+OK POP3 ready\r\n"), nil, "a POP3 server answers"},
		{"TLS at a port without", saying("* OK IMAP4rev1 ready\r\n"), []string{"tls: implicit"}, "does not begin with TLS"},
		{"nobody listens", func(*testing.T) string { return "127.0.0.1:1" }, nil, "nothing listens on this port"},
		{"no such host", func(*testing.T) string { return "imap.invalid:993" }, nil, "the host's name is not known"},
		{"no STARTTLS", saying("* OK IMAP4rev1 ready\r\nS1 BAD Unknown command\r\n"), []string{"tls: starttls"}, "the server does not do STARTTLS"},
		{"LOGINDISABLED", answering("AUTHENTICATE", "NO [PRIVACYREQUIRED] Plaintext authentication disallowed"), nil, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			if row.more == nil {
				row.more = []string{"tls: none"}
			}
			code, stdout, _ := check(t, entry(row.server(t), row.more...))
			if code != daemon.ExitFailed {
				t.Errorf("exit code %d", code)
			}
			_, do, found := strings.Cut(stdout, "what to do: ")
			if row.want != "" && (!found || !strings.Contains(do, row.want)) {
				t.Errorf("no %q in\n%s", row.want, stdout)
			}
			if strings.Contains(stdout, imaptest.Password) {
				t.Errorf("the password is shown:\n%s", stdout)
			}
		})
	}
}

// A provider that shows only part of a mailbox is named.
func TestPartialViews(t *testing.T) {
	if notes := limits([]string{"IDLE", "MessageLimit=1000"}); len(notes) != 1 || !strings.Contains(notes[0], "one command be about 1000 mails at most") {
		t.Errorf("%q", notes)
	}
	for host, want := range map[string]string{
		"imap.gmail.com": "Limit IMAP folders", "imap.mail.yahoo.com": "shows the newest only", "imap.example": "may hide older ones",
	} {
		if notes := partial(&account.Account{Host: host}, FolderReport{Name: "INBOX", Mails: 10_000}); len(notes) != 1 || !strings.Contains(notes[0], want) {
			t.Errorf("%s: %q", host, notes)
		}
	}
	if notes := partial(&account.Account{Host: "imap.gmail.com"}, FolderReport{Mails: 999}); len(notes) != 0 {
		t.Errorf("%q", notes)
	}
}

// A server that never answers holds up nobody, and a check that is ended ends.
func TestCheckEnds(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	good := imaptest.NewMemory(t, imaptest.Caps())
	accounts := []account.Account{imaptest.Account(speaker(t, "")), imaptest.Account(good.Addr)}
	reports := newChecker(state.Peek("", zerolog.Nop()), 0).all(ctx, accounts, 2)
	if reports[0].Problem == nil || reports[1].Problem != nil {
		t.Errorf("%+v", reports)
	}
}
