// Package imaptest has IMAP servers for tests: go-imap's own in memory, which remembers what it was told and goes down on command, and small ones that
// follow a script.
package imaptest

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/emersion/go-imap/v2/imapserver/imapmemserver"

	"spamtraps.internal/imap-collector/internal/account"
	"spamtraps.internal/imap-collector/internal/auth"
	"spamtraps.internal/libs/secret"
)

// What opens every mailbox of these servers.
const (
	Username = "trap"
	Password = "p4ss-of-the-trap"
)

// Memory is go-imap's server in memory, on loopback, without TLS.
type Memory struct {
	Addr     string
	User     *imapmemserver.User
	listener *tap
	stop     func()
	dial     func() (net.Conn, error)
}

// Caps are capabilities that most servers have.
func Caps() imap.CapSet {
	return imap.CapSet{
		imap.CapIMAP4rev1: {}, imap.CapIdle: {}, imap.CapUIDPlus: {}, imap.CapMove: {}, imap.CapESearch: {}, imap.CapSpecialUse: {},
		imap.CapListExtended: {}, imap.CapNamespace: {}, imap.CapUnselect: {}, imap.CapLiteralPlus: {}, imap.CapSASLIR: {},
	}
}

// NewMemory starts a server on loopback with one user, who has an INBOX. It ends with the test.
func NewMemory(t testing.TB, caps imap.CapSet) *Memory {
	t.Helper()
	inner, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // a test's
	if err != nil {
		t.Fatal(err)
	}
	m := NewMemoryOn(t, inner, caps)
	m.dial = func() (net.Conn, error) { return net.Dial("tcp", m.Addr) } //nolint:noctx // a test's
	return m
}

// NewMemoryOn starts one on a listener.
func NewMemoryOn(t testing.TB, inner net.Listener, caps imap.CapSet) *Memory {
	t.Helper()
	store := imapmemserver.New()
	user := imapmemserver.NewUser(Username, Password)
	if err := user.Create("INBOX", nil); err != nil {
		t.Fatal(err)
	}
	store.AddUser(user)
	server := imapserver.New(&imapserver.Options{
		NewSession: func(*imapserver.Conn) (imapserver.Session, *imapserver.GreetingData, error) {
			return store.NewSession(), nil, nil
		},
		Caps: caps, InsecureAuth: true,
	})
	listener := &tap{Listener: inner}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(listener) // ends with Close
	}()
	m := &Memory{Addr: inner.Addr().String(), User: user, listener: listener}
	m.stop = sync.OnceFunc(func() {
		_ = server.Close() // it ends whatever it says
		<-served
	})
	t.Cleanup(m.Stop)
	if n, ok := inner.(*Net); ok {
		m.dial = func() (net.Conn, error) { return n.Dial(context.Background(), "", "") }
	}
	return m
}

// Account returns an account on a server at addr, with defaults that suit tests.
func Account(addr string, change ...func(*account.Account)) account.Account {
	host, port, _ := net.SplitHostPort(addr)
	var number int
	_, _ = fmt.Sscan(port, &number) // of an address that was listened on
	a := account.Account{
		Name: "trap-1", ID: "trap-1", Host: host, Port: number, Username: Username, TLS: account.TLSNone, CheckCert: true,
		Login:   auth.NewPassword(Username, secret.New(Password)),
		Folders: []string{"INBOX", `\Junk`}, Fetch: account.FetchUnseen, After: account.After{Kind: account.AfterSeen},
		PollInterval: 5 * 60e9, MaxMessageBytes: 1 << 20, Enabled: true,
	}
	for _, c := range change {
		c(&a)
	}
	return a
}

// Deliver puts mails into a folder.
func (m *Memory) Deliver(t testing.TB, folder string, bodies ...string) {
	t.Helper()
	for _, body := range bodies {
		if _, err := m.User.Append(folder, literal{strings.NewReader(body)}, &imap.AppendOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}

type literal struct{ *strings.Reader }

func (l literal) Size() int64 { return l.Reader.Size() }

// Mails returns bodies with their flags, by UID, of what lies in a folder.
func (m *Memory) Mails(t testing.TB, folder string) map[uint32]Mail {
	t.Helper()
	return m.ask(t, folder)
}

// Mail is a mail that lies in a folder.
type Mail struct {
	Flags []string
	Body  string
}

// Seen tells whether it is marked.
func (m Mail) Seen() bool {
	for _, f := range m.Flags {
		if strings.EqualFold(f, `\Seen`) {
			return true
		}
	}
	return false
}

// Mark sets flags of a mail, as another client would.
func (m *Memory) Mark(t testing.TB, folder string, uid uint32, flags ...string) {
	t.Helper()
	m.dialogue(t, fmt.Sprintf("SELECT %q", folder), fmt.Sprintf("UID STORE %d +FLAGS.SILENT (%s)", uid, strings.Join(flags, " ")))
}

// ask looks into a folder from outside.
func (m *Memory) ask(t testing.TB, folder string) map[uint32]Mail {
	t.Helper()
	return m.dialogue(t, fmt.Sprintf("EXAMINE %q", folder), "UID FETCH 1:* (UID FLAGS BODY.PEEK[])")
}

// dialogue logs in and says commands of our own, which the server's tap does not count.
func (m *Memory) dialogue(t testing.TB, commands ...string) map[uint32]Mail {
	t.Helper()
	conn, err := m.dial()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	in := bufio.NewReader(conn)
	if _, err := in.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	mails := make(map[uint32]Mail)
	for i, text := range append([]string{"LOGIN " + Username + " " + Password}, commands...) {
		tag := fmt.Sprintf("own%d", i)
		if _, err := fmt.Fprintf(conn, "%s %s\r\n", tag, text); err != nil {
			t.Fatal(err)
		}
		for done := false; !done; {
			line, err := in.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			if done = strings.HasPrefix(line, tag+" "); done && !strings.HasPrefix(line, tag+" OK") {
				t.Fatalf("%s: %s", text, line)
			}
			readMail(t, in, line, mails)
		}
	}
	return mails
}

// readMail reads a mail if the line begins one.
func readMail(t testing.TB, in *bufio.Reader, line string, mails map[uint32]Mail) {
	t.Helper()
	var number, uid uint32
	if n, _ := fmt.Sscanf(line, "* %d FETCH (UID %d", &number, &uid); n != 2 {
		return
	}
	mail := Mail{}
	if _, after, found := strings.Cut(line, "FLAGS ("); found {
		flags, _, _ := strings.Cut(after, ")")
		mail.Flags = strings.Fields(flags)
	}
	if i := strings.LastIndexByte(line, '{'); i > 0 {
		var size int
		_, _ = fmt.Sscanf(line[i:], "{%d}", &size)
		body := make([]byte, size)
		if _, err := io.ReadFull(in, body); err != nil {
			t.Fatal(err)
		}
		mail.Body = string(body)
		rest, err := in.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if _, after, found := strings.Cut(rest, "FLAGS ("); found {
			flags, _, _ := strings.Cut(after, ")")
			mail.Flags = strings.Fields(flags)
		}
	}
	mails[uid] = mail
}

// Commands returns the lines that clients have sent so far, without tags.
func (m *Memory) Commands() []string { return m.listener.commands() }

// Stop ends the server before the test does, as a test in a bubble must.
func (m *Memory) Stop() { m.stop() }

// Hide keeps a word from what the server says to clients, such as " IDLE": the library offers some capabilities unasked.
func (m *Memory) Hide(word string) {
	m.listener.mu.Lock()
	defer m.listener.mu.Unlock()
	m.listener.hidden = []byte(word)
}

// Drop ends all connections, as if the server had been killed.
func (m *Memory) Drop() { m.listener.drop() }

// Refuse has new connections ended at once, until Accept.
func (m *Memory) Refuse(refuse bool) {
	m.listener.mu.Lock()
	m.listener.refuse = refuse
	m.listener.mu.Unlock()
	if refuse {
		m.Drop()
	}
}

// Answer has a function asked what to answer to each line that a client sends, without the tag; "": what the server answers.
func (m *Memory) Answer(answer func(line string) string) {
	m.listener.mu.Lock()
	defer m.listener.mu.Unlock()
	m.listener.answer = answer
}

// OnCommand has a function called with the number of each line that a client sends, counted from 1, before the server gets it. false ends the connection
// instead.
func (m *Memory) OnCommand(hook func(n int, line string) bool) {
	m.listener.mu.Lock()
	defer m.listener.mu.Unlock()
	m.listener.hook, m.listener.lines = hook, 0
}

// tap is a listener that hears what clients say.
type tap struct {
	net.Listener
	mu     sync.Mutex
	conns  map[*tapped]bool
	said   []string
	lines  int
	hook   func(n int, line string) bool
	answer func(line string) string
	refuse bool
	hidden []byte
}

type tapped struct {
	net.Conn
	tap  *tap
	in   *bufio.Reader
	line []byte
}

func (t *tap) Accept() (net.Conn, error) {
	for {
		conn, err := t.Listener.Accept()
		if err != nil {
			return nil, err
		}
		t.mu.Lock()
		if t.refuse {
			t.mu.Unlock()
			_ = conn.Close() // as wanted
			continue
		}
		c := &tapped{Conn: conn, tap: t, in: bufio.NewReader(conn)}
		if t.conns == nil {
			t.conns = make(map[*tapped]bool)
		}
		t.conns[c] = true
		t.mu.Unlock()
		return c, nil
	}
}

// Read hands the server whole lines, and keeps from it those that are answered here.
func (c *tapped) Read(p []byte) (int, error) {
	for len(c.line) == 0 {
		line, err := c.in.ReadBytes('\n')
		if err != nil {
			return 0, err
		}
		pass, answer := c.tap.hear(string(bytes.TrimRight(line, "\r\n")))
		switch {
		case !pass:
			_ = c.Conn.Close() // as wanted
			return 0, net.ErrClosed
		case answer == "":
			c.line = line
		default:
			tag, _, _ := bytes.Cut(line, []byte{' '})
			if _, err := fmt.Fprintf(c.Conn, "%s %s\r\n", tag, answer); err != nil {
				return 0, err
			}
		}
	}
	n := copy(p, c.line)
	c.line = c.line[n:]
	return n, nil
}

func (c *tapped) Write(p []byte) (int, error) {
	c.tap.mu.Lock()
	hidden := c.tap.hidden
	c.tap.mu.Unlock()
	if len(hidden) == 0 {
		return c.Conn.Write(p)
	}
	_, err := c.Conn.Write(bytes.ReplaceAll(p, hidden, nil))
	return len(p), err
}

func (t *tap) hear(line string) (pass bool, answer string) {
	_, text, found := strings.Cut(line, " ")
	if !found {
		text = line
	}
	t.mu.Lock()
	if strings.HasPrefix(line, "own") { // it is
		t.mu.Unlock()
		return true, ""
	}
	t.said = append(t.said, text)
	t.lines++
	hook, n, answers := t.hook, t.lines, t.answer
	t.mu.Unlock()
	if hook != nil && !hook(n, text) {
		return false, ""
	}
	if answers != nil {
		answer = answers(text)
	}
	return true, answer
}

func (c *tapped) Close() error {
	c.tap.mu.Lock()
	delete(c.tap.conns, c)
	c.tap.mu.Unlock()
	return c.Conn.Close()
}

func (t *tap) commands() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]string(nil), t.said...)
}

func (t *tap) drop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for c := range t.conns {
		_ = c.Conn.Close() // as wanted
	}
}
