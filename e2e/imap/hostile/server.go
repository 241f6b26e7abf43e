// Package hostile is a scripted IMAP server for tests: an honest one of few words, and scenarios in which it cuts, lies, floods,
// stalls and refuses, one a file. Each server has one account, remembers what it was asked, and knows what every mail of it
// is, so that a test can compare what a collector published, flagged and moved with the truth.
package hostile

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"maps"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Script is what a scenario changes of an honest server. A hook that returns true has answered by itself.
type Script struct {
	// Greet takes the place of the greeting.
	Greet func(s *Session) bool
	// Command sees each command before it is answered.
	Command func(s *Session, c *Command) bool
	// Mail sees each mail that is about to be sent in answer to a FETCH of bodies.
	Mail func(s *Session, c *Command, m Mail) bool
	// FetchDone sees a FETCH of bodies after its mails and before its tagged answer.
	FetchDone func(s *Session, c *Command) bool
}

// Server is a server on loopback. All methods may be called from any goroutine. It ends with the test.
type Server struct {
	// User and Password are the one account. They are distinct for each server, so that a leak shows whose it is.
	User, Password string
	// Port is the port on 127.0.0.1.
	Port int

	t      testing.TB
	script Script
	caps   []string
	tls    *tls.Config // for STARTTLS; nil offers none
	ended  chan struct{}
	listen net.Listener
	work   sync.WaitGroup

	mu       sync.Mutex
	folders  []*Folder
	sessions map[*Session]struct{}
	number   int // of sessions so far
	journal  []Entry
	counts   map[string]int
	taken    map[Key]string // what the client did last to a mail: seen, deleted, moved, expunged
	problems []string
	onStep   func(step int)
	steps    int
}

// Entry is one line that a client sent.
type Entry struct {
	At      time.Time
	Session int
	Text    string
}

// Key names one mail for good.
type Key struct {
	Folder      string
	UIDValidity uint32
	UID         uint32
}

// Mail is one mail at the time when it is sent.
type Mail struct {
	Key
	Seq   int
	Flags string
	Body  []byte
}

// defaultCaps are those of a well-equipped server.
var defaultCaps = []string{"IMAP4rev1", "ID", "IDLE", "UIDPLUS", "MOVE", "ESEARCH", "SPECIAL-USE", "LITERAL+", "SASL-IR", "AUTH=PLAIN"}

// Start starts the server of a scenario with a name of its own.
func Start(t testing.TB, name string, scenario Scenario) *Server {
	t.Helper()
	s := &Server{
		User: name + "@trap.example", Password: "geheim-" + name, t: t, script: scenario.Script, caps: slices.Clone(defaultCaps),
		ended: make(chan struct{}), sessions: make(map[*Session]struct{}), counts: make(map[string]int), taken: make(map[Key]string),
	}
	s.Add("INBOX", "", 1700000001)
	s.Add("Junk", `\Junk`, 1700000002)
	if scenario.Setup != nil {
		scenario.Setup(s)
	} else {
		s.Fill("INBOX", 1, 6)
	}
	var err error
	if s.listen, err = new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	s.Port = s.listen.Addr().(*net.TCPAddr).Port
	s.work.Go(s.accept)
	t.Cleanup(s.end)
	return s
}

// Caps sets the capabilities, separated by space, from now on.
func (s *Server) Caps(caps string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.caps = strings.Fields(caps)
}

// Without takes capabilities away.
func (s *Server) Without(caps ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.caps = slices.DeleteFunc(s.caps, func(c string) bool { return slices.Contains(caps, c) })
}

// Offer makes the server take STARTTLS with this configuration.
func (s *Server) Offer(config *tls.Config) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tls, s.caps = config, append(s.caps, "STARTTLS")
}

// OnStep calls f before each command is acted upon and after each that was answered, with a number that counts up from 1.
func (s *Server) OnStep(f func(step int)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onStep = f
}

func (s *Server) step() {
	s.mu.Lock()
	s.steps++
	f, n := s.onStep, s.steps
	s.mu.Unlock()
	if f != nil {
		f(n)
	}
}

// Journal returns what clients have sent so far.
func (s *Server) Journal() []Entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.journal)
}

// Asked tells how many lines of clients match a pattern, tag aside.
func (s *Server) Asked(pattern string) int { return len(s.When(pattern)) }

// When returns when clients sent the lines that match a pattern, tag aside.
func (s *Server) When(pattern string) []time.Time {
	p := regexp.MustCompile("(?i)^(?:" + pattern + ")")
	var at []time.Time
	for _, e := range s.Journal() {
		if _, text, _ := strings.Cut(e.Text, " "); p.MatchString(text) {
			at = append(at, e.At)
		}
	}
	return at
}

// Logins returns when each login was tried.
func (s *Server) Logins() []time.Time { return s.When("LOGIN |AUTHENTICATE ") }

// Problems tells of commands that the server did not understand: a gap of the server, or a mistake of the client.
func (s *Server) Problems() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.problems)
}

func (s *Server) problem(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.problems) < 20 {
		s.problems = append(s.problems, fmt.Sprintf(format, args...))
	}
}

// Nth counts the calls with this name and returns the number of this one, from 1.
func (s *Server) Nth(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts[name]++
	return s.counts[name]
}

// Times tells how often Nth was called with this name.
func (s *Server) Times(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts[name]
}

// Taken returns what clients did to mails: seen, deleted, moved or expunged, the last of it.
func (s *Server) Taken() map[Key]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.taken)
}

// Cut closes every connection with a reset.
func (s *Server) Cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for session := range s.sessions {
		session.abort()
	}
}

func (s *Server) accept() {
	for {
		conn, err := s.listen.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.number++
		session := &Session{Server: s, Number: s.number, conn: conn, raw: conn, read: bufio.NewReaderSize(conn, 16<<10), write: bufio.NewWriterSize(conn, 16<<10)}
		s.sessions[session] = struct{}{}
		s.mu.Unlock()
		s.work.Go(func() {
			session.serve()
			s.mu.Lock()
			delete(s.sessions, session)
			s.mu.Unlock()
			_ = conn.Close()
		})
	}
}

func (s *Server) end() {
	close(s.ended)
	_ = s.listen.Close()
	s.Cut()
	s.work.Wait()
	if s.t.Failed() {
		s.t.Logf("%s was asked:\n%s", s.User, s.lastWords())
	}
}

func (s *Server) lastWords() string {
	var b strings.Builder
	journal := s.Journal()
	if len(journal) > 60 {
		journal = journal[len(journal)-60:]
	}
	for _, e := range journal {
		fmt.Fprintf(&b, "  %s %d %.200s\n", e.At.Format("15:04:05.000"), e.Session, e.Text)
	}
	return b.String()
}

// Session is one connection. Its methods are for hooks, which run in the session's own goroutine.
type Session struct {
	*Server
	// Number counts the connections of the server from 1.
	Number int

	conn net.Conn // over TLS, when there is TLS
	raw  net.Conn
	read *bufio.Reader

	writing  sync.Mutex
	write    *bufio.Writer
	idling   bool
	selected *Folder
	readOnly bool
	loggedIn bool
}

// Command is one command of a client, with its literals in place.
type Command struct {
	Tag, Name, Args string // Name is in upper case, and has UID in front where it was
}

func (s *Session) serve() {
	if s.script.Greet == nil || !s.script.Greet(s) {
		s.Send("* OK [CAPABILITY %s] hostile ready\r\n", s.capabilities())
	}
	s.Flush()
	for {
		command, err := s.readCommand()
		if err != nil {
			return
		}
		if command.Name == "" {
			continue // the DONE of an IDLE that a scenario has ended by itself
		}
		s.step()
		if s.script.Command == nil || !s.script.Command(s, command) {
			s.Honest(command)
		}
		s.Flush()
		s.step()
		if command.Name == "LOGOUT" {
			return
		}
	}
}

func (s *Session) capabilities() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.caps, " ")
}

func (s *Session) has(capability string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Contains(s.caps, capability)
}

var literalEnd = regexp.MustCompile(`\{(\d+)(\+?)\}$`)

// maxClientLine bounds what a client may send in one command.
const maxClientLine = 4 << 20

func (s *Session) readCommand() (*Command, error) {
	var line strings.Builder
	for {
		part, err := s.read.ReadString('\n')
		if err != nil {
			return nil, err
		}
		part = strings.TrimRight(part, "\r\n")
		line.WriteString(part)
		m := literalEnd.FindStringSubmatch(part)
		if m == nil {
			break
		}
		n, err := strconv.Atoi(m[1])
		if err != nil || n+line.Len() > maxClientLine {
			return nil, fmt.Errorf("literal of %s bytes", m[1])
		}
		if m[2] == "" {
			s.Send("+ go on\r\n")
			s.Flush()
		}
		literal := make([]byte, n)
		if _, err := readFull(s.read, literal); err != nil {
			return nil, err
		}
		text := line.String()
		line.Reset()
		line.WriteString(text[:len(text)-len(m[0])] + `"` + string(literal) + `"`)
	}
	s.remember(line.String())
	tag, rest, _ := strings.Cut(line.String(), " ")
	name, args, _ := strings.Cut(rest, " ")
	name = strings.ToUpper(name)
	if name == "UID" {
		var second string
		second, args, _ = strings.Cut(args, " ")
		name += " " + strings.ToUpper(second)
	}
	return &Command{Tag: tag, Name: name, Args: args}, nil
}

func (s *Session) remember(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(line) > 2000 {
		line = line[:2000]
	}
	if len(s.journal) < 100_000 {
		s.journal = append(s.journal, Entry{At: time.Now(), Session: s.Number, Text: line})
	}
}

// Send writes to the client, buffered.
func (s *Session) Send(format string, args ...any) {
	s.writing.Lock()
	defer s.writing.Unlock()
	_, _ = fmt.Fprintf(s.write, format, args...)
}

// SendBytes writes bytes to the client, buffered. It returns false when the client is gone.
func (s *Session) SendBytes(p []byte) bool {
	s.writing.Lock()
	defer s.writing.Unlock()
	_, err := s.write.Write(p)
	return err == nil
}

// Flush sends what is buffered. It returns false when the client is gone.
func (s *Session) Flush() bool {
	s.writing.Lock()
	defer s.writing.Unlock()
	return s.write.Flush() == nil
}

// OK is the good tagged answer.
func (s *Session) OK(c *Command, text string) { s.Send("%s OK %s\r\n", c.Tag, text) }

// No refuses.
func (s *Session) No(c *Command, text string) { s.Send("%s NO %s\r\n", c.Tag, text) }

// Bad calls the command wrong.
func (s *Session) Bad(c *Command, text string) { s.Send("%s BAD %s\r\n", c.Tag, text) }

// Drop sends what is buffered and closes the connection.
func (s *Session) Drop() bool {
	s.Flush()
	_ = s.conn.Close()
	return true
}

// Bye says why and closes.
func (s *Session) Bye(text string) bool {
	s.Send("* BYE %s\r\n", text)
	return s.Drop()
}

// Hang sends what is buffered and then says nothing more until the client has gone.
func (s *Session) Hang() bool {
	s.Flush()
	for {
		if _, err := s.read.ReadString('\n'); err != nil {
			return true
		}
	}
}

// Pause waits, unless the server ends. It returns false when it ends.
func (s *Session) Pause(d time.Duration) bool {
	select {
	case <-s.ended:
		return false
	case <-time.After(d):
		return true
	}
}

func (s *Session) abort() {
	if tcp, ok := s.raw.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = s.raw.Close()
}

// StartTLS makes the connection one over TLS.
func (s *Session) StartTLS() {
	s.Flush()
	s.mu.Lock()
	config := s.tls
	s.mu.Unlock()
	conn := tls.Server(s.raw, config)
	s.writing.Lock()
	defer s.writing.Unlock()
	s.conn, s.read, s.write = conn, bufio.NewReaderSize(conn, 16<<10), bufio.NewWriterSize(conn, 16<<10)
}

func readFull(r *bufio.Reader, p []byte) (int, error) {
	n := 0
	for n < len(p) {
		m, err := r.Read(p[n:])
		n += m
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// Abort cuts the connection with a reset and what is buffered unsent.
func (s *Session) Abort() bool {
	s.abort()
	return true
}
