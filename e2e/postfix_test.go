package e2e

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"spamtraps.internal/libs/rig"
)

// impatient makes Postfix try again within seconds; an installation has minutes. Nobody answers for the names of test clients.
var impatient = []string{
	"POSTFIX_HOSTNAME=mx.trap.example", "POSTFIX_smtpd_peername_lookup=no",
	"POSTFIX_queue_run_delay=1s", "POSTFIX_minimal_backoff_time=1s", "POSTFIX_maximal_backoff_time=1s", "POSTFIX_transport_retry_time=1s",
}

// trap is a Postfix in front of an LMTP server of the test's own.
type trap struct {
	postfix *rig.Container
	sink    *lmtpSink
}

func newTrap(t *testing.T, o rig.Options) *trap {
	t.Helper()
	o.Network = rig.NewNetwork(t)
	sink := newLMTPSink(t, o.Network)
	o.Env = slices.Concat(impatient, []string{"POSTFIX_LMTP=inet:" + sink.addr}, o.Env)
	postfix := rig.Run(t, rig.Image(t, "postfix"), o)
	p := &trap{postfix: postfix, sink: sink}
	p.greets(t)
	return p
}

// greets waits until Postfix takes mail.
func (p *trap) greets(t *testing.T) {
	t.Helper()
	rig.Eventually(t, time.Minute, "Postfix greets", func() bool {
		c, err := (&net.Dialer{Timeout: time.Second}).DialContext(t.Context(), "tcp", ip(t, p.postfix)+":25")
		if err != nil {
			return false
		}
		defer func() { _ = c.Close() }()
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		_, _, err = textproto.NewReader(bufio.NewReader(c)).ReadResponse(220)
		return err == nil
	})
}

func (p *trap) dial(t *testing.T, helo string) *smtpClient {
	t.Helper()
	return dialSMTP(t, p.postfix, helo)
}

// dialSMTP connects to Postfix from this machine, without address translation between.
func dialSMTP(t *testing.T, postfix *rig.Container, helo string) *smtpClient {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", ip(t, postfix)+":25")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	c := &smtpClient{t: t, conn: conn, text: textproto.NewConn(conn)}
	c.want(220, "")
	c.want(250, "EHLO "+helo)
	return c
}

// arrived waits until n mails have arrived and Postfix has nothing more to deliver, and takes them out of the sink.
func (p *trap) arrived(t *testing.T, n int) []lmtpMail {
	t.Helper()
	rig.Eventually(t, time.Minute, fmt.Sprintf("%d mails have arrived", n), func() bool { return p.sink.count() >= n })
	p.queueEmpties(t)
	mails := p.sink.take()
	if len(mails) != n {
		t.Errorf("%d mails have arrived, want %d", len(mails), n)
	}
	return mails
}

func (p *trap) queueEmpties(t *testing.T) {
	t.Helper()
	rig.Eventually(t, time.Minute, "Postfix's queue is empty", func() bool { return p.postfix.Exec("postqueue", "-j") == "" })
}

// smtpClient says exactly what it is told to. Any surprise ends the test.
type smtpClient struct {
	t    *testing.T
	conn net.Conn
	text *textproto.Conn
}

// say sends a line, unless it is empty, and returns the reply.
func (c *smtpClient) say(line string) (code int, reply string) {
	c.t.Helper()
	_ = c.conn.SetDeadline(time.Now().Add(time.Minute))
	if line != "" {
		c.write(line + "\r\n")
	}
	code, reply, err := c.text.ReadResponse(0)
	if err != nil {
		c.t.Fatalf("after %.80q: %v", line, err)
	}
	return code, reply
}

func (c *smtpClient) want(code int, line string) {
	c.t.Helper()
	if got, reply := c.say(line); got != code {
		c.t.Fatalf("the answer to %.80q is %d %s, want %d", line, got, reply, code)
	}
}

func (c *smtpClient) write(raw string) {
	c.t.Helper()
	if _, err := io.WriteString(c.conn, raw); err != nil {
		c.t.Fatal(err)
	}
}

// envelope opens a transaction. from and to are what stands between the angle brackets.
func (c *smtpClient) envelope(from string, to ...string) {
	c.t.Helper()
	c.want(250, "MAIL FROM:<"+from+">")
	for _, rcpt := range to {
		c.want(250, "RCPT TO:<"+rcpt+">")
	}
}

// data sends a mail that ends in CR LF by DATA, with the dots of RFC 5321 §4.5.2.
func (c *smtpClient) data(content string) {
	c.t.Helper()
	c.rawData(strings.ReplaceAll("\r\n"+content, "\r\n.", "\r\n..")[2:])
}

// rawData is data of a smuggler, who stuffs no dots.
func (c *smtpClient) rawData(content string) {
	c.t.Helper()
	c.want(354, "DATA")
	c.write(content)
	c.want(250, ".")
}

// chunk sends a mail by BDAT (RFC 3030): nothing is stuffed, and it may end in the middle of a line.
func (c *smtpClient) chunk(content string) {
	c.t.Helper()
	c.write(fmt.Sprintf("BDAT %d LAST\r\n%s", len(content), content))
	c.want(250, "")
}

// lmtpMail is a transaction that the sink has answered with 250.
type lmtpMail struct {
	xforward map[string]string
	from     string   // the argument of MAIL as it came, with its parameters
	to       []string // those of RCPT
	content  []byte
}

// String shows a mail in a failed test.
func (m lmtpMail) String() string {
	return fmt.Sprintf("MAIL %s RCPT %s %v %.500q", m.from, strings.Join(m.to, " "), m.xforward, m.content)
}

// body is the mail without the header that Postfix puts before it.
func (m *lmtpMail) body() string {
	return string(receivedLine.ReplaceAll(m.content, nil))
}

var receivedLine = regexp.MustCompile(`\AReceived: .*\r\n(?:\t.*\r\n)*`)

// lmtpSink is an LMTP server on this machine that keeps what comes byte by byte, and refuses what it is told to. It knows a
// mail by the HELO name that XFORWARD brings: the only thing known before MAIL of mail from the null sender.
type lmtpSink struct {
	addr string // as the containers of the network reach it

	mu       sync.Mutex
	refusals map[string]refusal
	refused  map[string]int
	mails    []lmtpMail
}

// refusal is the answer to a command (LHLO to DATA, or "." for the end of data).
type refusal struct{ command, reply string }

func newLMTPSink(t *testing.T, network string) *lmtpSink {
	t.Helper()
	gateway := rig.Docker(t, "network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", network)
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", gateway+":0")
	if err != nil {
		t.Fatal(err)
	}
	s := &lmtpSink{refusals: map[string]refusal{}, refused: map[string]int{}}
	s.addr = listener.Addr().String()
	var sessions sync.WaitGroup
	sessions.Go(func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			sessions.Go(func() { s.session(c) })
		}
	})
	// Postfix, which was started later, is gone by then, and its connections with it.
	t.Cleanup(func() { _ = listener.Close(); sessions.Wait() })
	return s
}

func (s *lmtpSink) refuse(helo, command, reply string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refusals[helo] = refusal{command, reply}
}

// acceptAll ends all refusals.
func (s *lmtpSink) acceptAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.refusals)
}

// tries counts the refused transactions of a client.
func (s *lmtpSink) tries(helo string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refused[helo]
}

func (s *lmtpSink) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.mails)
}

func (s *lmtpSink) take() []lmtpMail {
	s.mu.Lock()
	defer s.mu.Unlock()
	mails := s.mails
	s.mails = nil
	return mails
}

// answer is reply, unless this command of this mail is to be refused.
func (s *lmtpSink) answer(m *lmtpMail, command, reply string) (text string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	helo := m.xforward["HELO"]
	if r, told := s.refusals[helo]; told && r.command == command {
		s.refused[helo]++
		return r.reply, false
	}
	return reply, true
}

func (s *lmtpSink) session(c net.Conn) {
	defer func() { _ = c.Close() }()
	r := bufio.NewReader(c)
	say := func(reply string) { _, _ = io.WriteString(c, reply+"\r\n") }
	say("220 sink.example LMTP")
	m := lmtpMail{xforward: map[string]string{}}
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		verb, rest, _ := strings.Cut(strings.TrimRight(line, "\r\n"), " ")
		reply, ok := s.answer(&m, verb, "250 2.0.0 Ok")
		switch verb {
		case "LHLO":
			// No PIPELINING: each refusal is seen before the next command.
			reply = "250-sink.example\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 XFORWARD NAME ADDR PROTO HELO SOURCE PORT IDENT"
		case "XFORWARD":
			for pair := range strings.FieldsSeq(rest) {
				name, value, _ := strings.Cut(pair, "=")
				m.xforward[name] = value
			}
		case "MAIL":
			m.from = strings.TrimPrefix(rest, "FROM:")
		case "RCPT":
			if ok {
				m.to = append(m.to, strings.TrimPrefix(rest, "TO:"))
			}
		case "DATA":
			if !ok {
				break
			}
			say("354 go on")
			if m.content, err = readData(r); err != nil {
				return
			}
			// One reply a recipient (RFC 2033 §4.2).
			reply, ok = s.answer(&m, ".", "250 2.0.0 Ok")
			for range m.to[1:] {
				say(reply)
			}
			if ok {
				s.keep(m)
			}
			m = lmtpMail{xforward: map[string]string{}}
		case "RSET":
			m = lmtpMail{xforward: map[string]string{}}
		case "QUIT":
			return
		}
		say(reply)
	}
}

func (s *lmtpSink) keep(m lmtpMail) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mails = append(s.mails, m)
}

// readData reads up to CR LF . CR LF and nothing else that looks like an end, and takes the stuffed dots out.
func readData(r *bufio.Reader) ([]byte, error) {
	var content []byte
	for atStart := true; ; {
		line, err := r.ReadBytes('\n')
		if err != nil {
			return nil, err
		}
		if atStart && string(line) == ".\r\n" {
			return content, nil
		}
		if atStart && line[0] == '.' {
			line = line[1:]
		}
		content = append(content, line...)
		atStart = bytes.HasSuffix(line, []byte("\r\n"))
	}
}

// sameMails tells which of the mails, each written as a string of the test's own, are missing or too many.
func sameMails(t *testing.T, got, want []string) {
	t.Helper()
	for _, mail := range want {
		if i := slices.Index(got, mail); i >= 0 {
			got = slices.Delete(got, i, i+1)
		} else {
			t.Errorf("not there: %q", mail)
		}
	}
	for _, mail := range got {
		t.Errorf("unexpected: %q", mail)
	}
}

// asCompose is how Compose runs one of the servers, taken from the file itself: read-only, with these capabilities, volumes and
// temporary file systems only.
func asCompose(t testing.TB, service string) []string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(rig.Root(t), "compose.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	section := regexp.MustCompile(`(?ms)^  ` + service + `:\n.*?\n\n`).FindString(string(raw) + "\n")
	args := slices.Clone(hardened)
	for flag, name := range map[string]string{"--cap-add": "cap_add", "--tmpfs": "tmpfs"} {
		list := regexp.MustCompile(`\n    ` + name + `: \[(.*)\]\n`).FindStringSubmatch(section)
		if list == nil {
			t.Fatalf("compose.yaml has no %s for %s", name, service)
		}
		for value := range strings.SplitSeq(list[1], ", ") {
			args = append(args, flag, value)
		}
	}
	for _, volume := range regexp.MustCompile(`\n      - [a-z-]+:(/.*)`).FindAllStringSubmatch(section, -1) {
		args = append(args, "-v", volume[1])
	}
	return args
}

func TestPostfix(t *testing.T) {
	p := newTrap(t, rig.Options{Args: asCompose(t, "postfix")})
	t.Run("takes mail for anybody", p.takesMailForAnybody)
	t.Run("hands on the bytes", p.handsOnTheBytes)
	t.Run("tells who sent it", p.tellsWhoSentIt)
	t.Run("keeps what is refused", p.keepsWhatIsRefused)
	t.Run("has one way out", p.hasOneWayOut)
	t.Run("speaks TLS", p.speaksTLS)
	t.Run("survives a kill", p.survivesAKill)
}

func (p *trap) takesMailForAnybody(t *testing.T) {
	rows := []struct{ to, want string }{
		{"u@any.example", "u@any.example"},
		{"u@mx.trap.example", "u@mx.trap.example"},
		{"u@localhost", "u@localhost"},
		{"u@UPPER.Example", "u@UPPER.Example"},
		{"u@under_score.example", "u@under_score.example"},
		{"u@xn--bcher-kva.example", "u@xn--bcher-kva.example"},
		{"u@[127.0.0.1]", "u@[127.0.0.1]"},
		{"u@[IPv6:::1]", "u@[IPv6:::1]"},
		{"u%inner.example@outer.example", "u%inner.example@outer.example"},
		{"inner.example!u@outer.example", "inner.example!u@outer.example"},
		{"Postmaster@any.example", "Postmaster@any.example"},
		{`"two words"@any.example`, `"two words"@any.example`},
		{`"a@b"@any.example`, `"a@b"@any.example`},
		{`"a\"b"@any.example`, `"a\"b"@any.example`},
		{"u+tag@any.example", "u+tag@any.example"},
		{"u=x/y|z'{}~^@any.example", "u=x/y|z'{}~^@any.example"},
		{strings.Repeat("l", 200) + "@any.example", strings.Repeat("l", 200) + "@any.example"},
		{"gr\u00fc\u00dfe@any.example", "gr\u00fc\u00dfe@any.example"},
		{"u@b\u00fccher.example", "u@b\u00fccher.example"},

		// An address without a domain gets ours.
		{"postmaster", "postmaster@mx.trap.example"},
		{"nobody", "nobody@mx.trap.example"},
		{"inner.example!u", "inner.example!u@mx.trap.example"},
		{"u%inner.example", "u%inner.example@mx.trap.example"},
		// What else Postfix does to an address, docs/flow.md tells.
		{"@relay.example:u@any.example", "u@any.example"},
		{"@one.example,@two.example:u@any.example", "u@any.example"},
		{".dot.@any.example", `".dot."@any.example`},
		{"two..dots@any.example", `"two..dots"@any.example`},
		{"u@any.example.", "u@any.example"},

		// Not an address at all: no want.
		{"u@1.2.3.4", ""},
		{"u@-bad-.", ""},
		{"<script>alert(1)</script>@any.example", ""},
		{"", ""},
	}
	c := p.dial(t, "odd.example")
	var want []string
	for _, row := range rows {
		c.want(250, "MAIL FROM:<a@spam.example> SMTPUTF8")
		if row.want == "" {
			c.want(501, "RCPT TO:<"+row.to+">")
			c.want(250, "RSET")
			continue
		}
		c.want(250, "RCPT TO:<"+row.to+">")
		c.data("For: " + row.to + "\r\n")
		want = append(want, "For: "+row.to+"\r\nMAIL <a@spam.example> SMTPUTF8 RCPT <"+row.want+">")
	}
	c.envelope("", "a@any.example", "b@other.example", "a@any.example")
	c.data("For: many\r\n")
	want = append(want, "For: many\r\nMAIL <> RCPT <a@any.example> <b@other.example>")

	var got []string
	for _, m := range p.arrived(t, len(want)) {
		got = append(got, m.body()+"MAIL "+m.from+" RCPT "+strings.Join(m.to, " "))
	}
	sameMails(t, got, want)
}

// The second half of this table is docs/flow.md, "What Postfix changes".
func (p *trap) handsOnTheBytes(t *testing.T) {
	var every strings.Builder
	for b := range 256 {
		if b != '\r' && b != '\n' {
			every.WriteByte(byte(b))
		}
	}
	const head = "Subject: s\r\n\r\n"
	const smuggled = "MAIL FROM:<x@x.example>\r\nRCPT TO:<smuggled@x.example>\r\nDATA\r\n"
	folded := func(lines int) string {
		return "X-Long: x\r\n" + strings.Repeat("\t"+strings.Repeat("x", 997)+"\r\n", lines)
	}
	data, rawData, chunk := (*smtpClient).data, (*smtpClient).rawData, (*smtpClient).chunk
	rows := []struct {
		name       string
		by         func(c *smtpClient, content string)
		sent, want string
	}{
		{"plain", data, head + "text\r\n", head + "text\r\n"},
		{"every byte", data, head + every.String() + "\r\n", head + every.String() + "\r\n"},
		{"8-bit header", data, "Subject: gr\xfc\xdfe \xff\r\n\r\n", "Subject: gr\xfc\xdfe \xff\r\n\r\n"},
		{"line of 100 kB", data, head + strings.Repeat("x", 100_000) + "\r\n", head + strings.Repeat("x", 100_000) + "\r\n"},
		{"header line of 60 kB", data, "X-Long: " + strings.Repeat("x", 60_000) + "\r\n" + head, "X-Long: " + strings.Repeat("x", 60_000) + "\r\n" + head},
		{"header of 900 kB", data, folded(900) + head, folded(900) + head},
		{"bare CR", data, head + "a\rb\r\r\nc\r\r\r\n\rd\r\n", head + "a\rb\r\r\nc\r\r\r\n\rd\r\n"},
		{"bare CR in the header", data, "X-A: a\rb\r\r\n" + head, "X-A: a\rb\r\r\n" + head},
		{"dots", data, head + ".\r\n..\r\n...\r\n.x\r\n", head + ".\r\n..\r\n...\r\n.x\r\n"},
		{"white space at ends", data, "X-A: a \t \r\n" + head + "b \t \r\n \r\n\r\n\r\n", "X-A: a \t \r\n" + head + "b \t \r\n \r\n\r\n\r\n"},
		{"header only", data, "Subject: s\r\n", "Subject: s\r\n"},
		{"nothing", data, "", ""},
		{"MIME that lies", data, "MIME-Version: 1.0\r\nContent-Transfer-Encoding: 7bit\r\n\r\n\xe4\r\n", "MIME-Version: 1.0\r\nContent-Transfer-Encoding: 7bit\r\n\r\n\xe4\r\n"},
		{"fields that mail servers drop", data, "Return-Path: <x>\r\nBcc: a\r\nResent-Bcc: b\r\nContent-Length: 7\r\n" + head, "Return-Path: <x>\r\nBcc: a\r\nResent-Bcc: b\r\nContent-Length: 7\r\n" + head},
		{"odd addresses", data, "From: a\r\nTo: b@c, (d) e!f\r\nDate: never\r\nMessage-ID: x\r\n\r\n", "From: a\r\nTo: b@c, (d) e!f\r\nDate: never\r\nMessage-ID: x\r\n\r\n"},
		{"500 hops", data, strings.Repeat("Received: from a by b; now\r\n", 500) + head, strings.Repeat("Received: from a by b; now\r\n", 500) + head},
		{"BDAT", chunk, head + ".\r\n" + every.String() + "\r\n.\r\n\r\n", head + ".\r\n" + every.String() + "\r\n.\r\n\r\n"},
		{"smuggled CR.CRLF", rawData, head + "a\r.\r\n" + smuggled, head + "a\r.\r\n" + smuggled},
		{"smuggled CR.CR", rawData, head + "a\r.\r" + smuggled, head + "a\r.\r" + smuggled},
		{"smuggled CRLF NUL.CRLF", rawData, head + "a\r\n\x00.\r\n" + smuggled, head + "a\r\n\x00.\r\n" + smuggled},

		{"bare LF", data, "X-A: a\nX-B: b\n" + head + "a\nb\n\nc\r\n", "X-A: a\r\nX-B: b\r\n" + head + "a\r\nb\r\n\r\nc\r\n"},
		{"smuggled LF.LF", rawData, head + "a\n.\n" + smuggled, head + "a\r\n" + smuggled},
		{"smuggled LF.CRLF", rawData, head + "a\n.\r\n" + smuggled, head + "a\r\n" + smuggled},
		{"smuggled CRLF.LF", rawData, head + "a\r\n.\n" + smuggled, head + "a\r\n" + smuggled},
		{"smuggled CRLF.CR", rawData, head + "a\r\n.\r" + smuggled, head + "a\r\n\r" + smuggled},
		{"BDAT with bare LF", chunk, head + "a\nb\n.\nc\r\n", head + "a\r\nb\r\n.\r\nc\r\n"},
		{"BDAT that ends in a line", chunk, head + "x", head + "x\r\n"},
		{"no header", data, "text\r\n.\r\n", "\r\ntext\r\n.\r\n"},
		{"leading space", data, " text\r\n" + head, "\r\n text\r\n" + head},
		{"no colon within the header", data, "Subject: s\r\nnothing\r\nX-A: b\r\n\r\n", "Subject: s\r\n\r\nnothing\r\nX-A: b\r\n\r\n"},
		{"mbox line", data, "From a@b Mon\r\n" + head, "X-Mailbox-Line: From a@b Mon\r\n" + head},
		{"quoted mbox line", data, ">From a@b Mon\r\n" + head, "X-Mailbox-Line: >From a@b Mon\r\n" + head},
		{"space before a colon", data, "X-A : a\r\nX-B \t: b\r\n" + head, "X-A: a\r\nX-B: b\r\n" + head},
		{"NUL in the header", data, "X-A: a\x00b\r\n" + head, "X-A: a\r\n" + head},
		{"header of 2 MB", data, folded(2000) + head, folded(1049) + head},
	}
	c := p.dial(t, "bytes.example")
	for i, row := range rows {
		c.envelope("a@spam.example", fmt.Sprintf("row-%d@trap.example", i))
		row.by(c, row.sent)
	}
	for _, m := range p.arrived(t, len(rows)) {
		var i int
		if _, err := fmt.Sscanf(m.to[0], "<row-%d@", &i); err != nil {
			t.Errorf("mail for %q: %v", m.to, err)
			continue
		}
		if got, want := m.body(), rows[i].want; got != want {
			t.Errorf("%s: arrived are %d bytes\n%.300q\nwant %d\n%.300q", rows[i].name, len(got), got, len(want), want)
		}
	}
}

func (p *trap) tellsWhoSentIt(t *testing.T) {
	c := p.dial(t, "Some-Bot")
	local := c.conn.LocalAddr().(*net.TCPAddr)
	c.envelope("a@spam.example", "u@trap.example")
	c.data("Subject: s\r\n")
	for _, m := range p.arrived(t, 1) {
		id := regexp.MustCompile(`with ESMTP id (\w+)`).FindSubmatch(m.content)
		if id == nil {
			t.Fatalf("there is no queue id in %q", m.content)
		}
		for name, want := range map[string]string{
			"ADDR": local.IP.String(), "PORT": fmt.Sprint(local.Port), "HELO": "Some-Bot", "PROTO": "ESMTP", "SOURCE": "REMOTE",
			"IDENT": string(id[1]),
		} {
			if got := m.xforward[name]; got != want {
				t.Errorf("XFORWARD %s is %q, want %q", name, got, want)
			}
		}
		// Short ids are used again within seconds.
		if len(id[1]) < 12 {
			t.Errorf("the queue id %s is a short one", id[1])
		}
	}
}

// Whatever the LMTP server says, for whatever sender: the mail stays, no bounce comes of it, and it is tried again.
func (p *trap) keepsWhatIsRefused(t *testing.T) {
	var helos, want []string
	for _, command := range []string{"MAIL", "RCPT", "DATA", "."} {
		for _, reply := range []string{"451 4.3.0 later", "550 5.7.1 never"} {
			for _, from := range []string{"a@spam.example", ""} {
				helo := fmt.Sprintf("refused-%d.example", len(helos))
				p.sink.refuse(helo, command, reply)
				c := p.dial(t, helo)
				c.envelope(from, "u@trap.example")
				c.data("Subject: s\r\n\r\n" + helo + "\r\n")
				helos = append(helos, helo)
				want = append(want, helo+" <"+from+">")
			}
		}
	}
	for _, helo := range helos {
		rig.Eventually(t, time.Minute, "mail of "+helo+" is tried again", func() bool { return p.sink.tries(helo) >= 2 })
	}
	if mails := p.sink.take(); len(mails) > 0 {
		t.Errorf("while all is refused there arrives %v", mails)
	}
	p.sink.acceptAll()
	var got []string
	for _, m := range p.arrived(t, len(want)) {
		got = append(got, m.xforward["HELO"]+" "+m.from)
	}
	sameMails(t, got, want)
}

// No program of Postfix that could take mail anywhere but to the LMTP server is so much as defined.
func (p *trap) hasOneWayOut(t *testing.T) {
	inner := []string{
		"anvil", "bounce", "cleanup", "discard", "error", "lmtp", "postlogd", "qmgr", "scache", "showq", "smtpd", "tlsmgr", "trivial-rewrite",
	}
	for line := range strings.Lines(p.postfix.Exec("postconf", "-M")) {
		if command := strings.Fields(line)[7]; !slices.Contains(inner, command) {
			t.Errorf("master.cf has %q", line)
		}
	}
}

func (p *trap) speaksTLS(t *testing.T) {
	c := p.dial(t, "tls.example")
	_, offered := c.say("EHLO tls.example")
	want := "mx.trap.example\nPIPELINING\nSIZE 15728640\nVRFY\nSTARTTLS\nENHANCEDSTATUSCODES\n8BITMIME\nSMTPUTF8\nCHUNKING"
	if offered != want {
		t.Errorf("EHLO offers %q, want %q", offered, want)
	}
	c = c.startTLS(&tls.Config{InsecureSkipVerify: true}) //nolint:gosec // a trap's own certificate is nobody's to verify
	certificate := c.conn.(*tls.Conn).ConnectionState().PeerCertificates[0]
	if certificate.Subject.CommonName != "mx.trap.example" || certificate.NotAfter.Before(time.Now().AddDate(1, 0, 0)) {
		t.Errorf("the certificate is for %s until %v", certificate.Subject, certificate.NotAfter)
	}
	c.envelope("a@spam.example", "u@trap.example")
	c.data("Subject: s\r\n")
	for _, m := range p.arrived(t, 1) {
		if !bytes.Contains(m.content, []byte("(using TLSv1.3 ")) {
			t.Errorf("the mail does not tell that it came by TLS: %q", m.content)
		}
	}
}

func (p *trap) survivesAKill(t *testing.T) {
	var want []string
	for _, from := range []string{"a@spam.example", "", "b@spam.example"} {
		helo := fmt.Sprintf("killed-%d.example", len(want))
		p.sink.refuse(helo, "MAIL", "451 4.3.0 later")
		c := p.dial(t, helo)
		c.envelope(from, "u@trap.example")
		c.data("Subject: s\r\n\r\n" + helo + "\r\n")
		want = append(want, "<"+from+"> Subject: s\r\n\r\n"+helo+"\r\n")
	}
	p.postfix.Kill()
	p.sink.acceptAll()
	p.postfix.Start()
	p.greets(t)
	var got []string
	for _, m := range p.arrived(t, len(want)) {
		got = append(got, m.from+" "+m.body())
	}
	sameMails(t, got, want)
}

// With settings of an operator's: certain domains only, a certificate, a short life in the queue, and ways out that are no more.
func TestPostfixAsTold(t *testing.T) {
	ca := rig.NewCA(t)
	certFile, keyFile := ca.Issue(time.Now().Add(time.Hour), "mx.trap.example")
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "chain.pem"), readFile(t, keyFile)+readFile(t, certFile))
	p := newTrap(t, rig.Options{
		Folders: map[string]string{"/tls": dir},
		Env: []string{
			"POSTFIX_DOMAINS=ours.example,also.example", "POSTFIX_MESSAGE_SIZE_LIMIT=1MiB",
			"POSTFIX_smtpd_tls_chain_files=/tls/chain.pem",
			"POSTFIX_maximal_queue_lifetime=1s", "POSTFIX_bounce_queue_lifetime=1s",
			"POSTFIX_transport_maps=inline:{{smtp.ours.example=smtp:[127.0.0.1]:25}," +
				"{relay.ours.example=relay:[127.0.0.1]:25},{local.ours.example=local:},{pipe.ours.example=pipe:}}",
		},
	})

	t.Run("takes mail for its domains only", func(t *testing.T) {
		c := p.dial(t, "domains.example")
		c.want(250, "MAIL FROM:<a@ours.example>")
		for to, code := range map[string]int{
			"u@ours.example": 250, "u@sub.ours.example": 250, "u@also.example": 250, "u%other.example@ours.example": 250,
			"u@other.example": 554, "u@notours.example": 554, "u@example": 554, "@ours.example:u@other.example": 554,
			"ours.example!u@other.example": 554, "u%ours.example@other.example": 554, `"u@ours.example"@other.example`: 554,
		} {
			c.want(code, "RCPT TO:<"+to+">")
		}
		c.data("Subject: s\r\n")
		for _, m := range p.arrived(t, 1) {
			slices.Sort(m.to)
			if want := []string{"<u%other.example@ours.example>", "<u@also.example>", "<u@ours.example>", "<u@sub.ours.example>"}; !slices.Equal(m.to, want) {
				t.Errorf("arrived is mail for %q, want %q", m.to, want)
			}
		}
	})

	t.Run("shows its certificate", func(t *testing.T) {
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM([]byte(readFile(t, ca.File)))
		c := p.dial(t, "tls.example").startTLS(&tls.Config{RootCAs: roots, ServerName: "mx.trap.example", MinVersion: tls.VersionTLS12})
		c.want(250, "NOOP")
	})

	t.Run("refuses what is too large", func(t *testing.T) {
		c := p.dial(t, "large.example")
		c.want(552, "MAIL FROM:<a@ours.example> SIZE=1048577")
		c.want(250, "MAIL FROM:<a@ours.example> SIZE=1048576")
	})

	// Were a bounce made, it would come to the sink, whatever domain the forged sender is of, and without a HELO that is refused.
	t.Run("ends without a word what is too old", func(t *testing.T) {
		var helos []string
		for i, from := range []string{"a@ours.example", "a@other.example", ""} {
			helo := fmt.Sprintf("old-%d.example", i)
			helos = append(helos, helo)
			p.sink.refuse(helo, "RCPT", "550 5.1.1 never")
			c := p.dial(t, helo)
			c.envelope(from, "u@ours.example")
			c.data("Subject: s\r\n")
		}
		p.queueEmpties(t)
		for _, helo := range helos {
			if p.sink.tries(helo) == 0 {
				t.Errorf("mail of %s has never been tried", helo)
			}
		}
		if mails := p.sink.take(); len(mails) > 0 {
			t.Errorf("there arrives %v", mails)
		}
	})

	t.Run("has no other way out", func(t *testing.T) {
		ways := []string{"smtp", "relay", "local", "pipe"}
		for _, way := range ways {
			c := p.dial(t, "out.example")
			c.envelope("a@ours.example", "u@"+way+".ours.example")
			c.data("Subject: s\r\n")
		}
		p.queueEmpties(t)
		log := p.postfix.Logs()
		for _, way := range ways {
			if !regexp.MustCompile(`to=<u@` + way + `\.ours\.example>.* status=deferred \(mail transport unavailable\)`).MatchString(log) {
				t.Errorf("mail by %s was not held for want of a transport", way)
			}
		}
		if mails := p.sink.take(); len(mails) > 0 {
			t.Errorf("there arrives %v", mails)
		}
	})
}

// startTLS goes on in TLS and says EHLO again.
func (c *smtpClient) startTLS(config *tls.Config) *smtpClient {
	c.t.Helper()
	c.want(220, "STARTTLS")
	conn := tls.Client(c.conn, config)
	if err := conn.HandshakeContext(c.t.Context()); err != nil {
		c.t.Fatal(err)
	}
	secure := &smtpClient{t: c.t, conn: conn, text: textproto.NewConn(conn)}
	secure.want(250, "EHLO tls.example")
	return secure
}

func TestPostfixRefusesABadSettingWithASentence(t *testing.T) {
	for _, row := range []struct{ setting, want string }{
		{"POSTFIX_relay_domain=x.example", `postfix: POSTFIX_relay_domain: Postfix has no parameter "relay_domain"`},
		{"POSTFIX_Hostname=x.example", `postfix: POSTFIX_Hostname: Postfix has no parameter "Hostname"`},
		{"POSTFIX_MESSAGE_SIZE_LIMIT=much", `postfix: POSTFIX_MESSAGE_SIZE_LIMIT must be a number of bytes such as 15MiB, not "much"`},
		{"POSTFIX_smtpd_tls_chain_files=/etc/passwd", "postfix: smtpd_tls_chain_files (/etc/passwd) must hold a private key and then its certificate"},
	} {
		c := rig.Run(t, rig.Image(t, "postfix"), rig.Options{Env: []string{row.setting}})
		rig.Eventually(t, time.Minute, "Postfix with "+row.setting+" ends", func() bool {
			return rig.Docker(t, "inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", c.Name) == "exited 1"
		})
		if says := output(t, "logs", c.Name); !strings.Contains(says, row.want+"\n") {
			t.Errorf("%s: it says\n%s\nwant\n%s", row.setting, says, row.want)
		}
	}
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	raw, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func writeFile(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
