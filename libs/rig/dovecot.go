package rig

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	sharedDovecotName = "spamtraps-rig-dovecot"

	portIMAP  = 143
	portIMAPS = 993

	// imapTimeout bounds one exchange of the rig's own with Dovecot, which may be the import of thousands of mails.
	imapTimeout = 5 * time.Minute
	// appendBatch is how many mails one APPEND carries (MULTIAPPEND, RFC 3502): each is a transaction with its fsync.
	appendBatch = 500
)

// Dovecot is a Dovecot 2.4 in a container of the project's own image: a provider of trap mailboxes, where every user exists.
type Dovecot struct {
	*Container
	// Host, Port and TLSPort are where IMAP with STARTTLS and IMAP over TLS are published on loopback; they stay the same over
	// Stop and Start.
	Host          string
	Port, TLSPort int
	// Password opens every mailbox.
	Password string
	// CAFile is the certificate to trust, in PEM. It is valid for localhost and 127.0.0.1.
	CAFile string

	tokenKey string
}

// DovecotMail is one mail of a mailbox, as the mailbox tells of it.
type DovecotMail struct {
	UID   uint32
	Flags []string // without \Recent
}

// SharedDovecot returns the Dovecot that all test processes share, started when it does not run or runs an older image. Its
// tests use mailboxes of their own, by names from User, and must not stop, pause or starve it: OwnDovecot is for that. It stays
// up after the tests for the next run.
func SharedDovecot(t testing.TB) *Dovecot {
	t.Helper()
	image := Image(t, "dovecot")
	unlock := lock(t)
	defer unlock()
	if !dovecotShared.runs(t, image) && !dovecotShared.inUse(t) {
		_, _ = docker("rm", "-f", "-v", sharedDovecotName)
		if err := start(sharedDovecotName, "shared", image, dovecotOptions()); err != nil {
			t.Fatal(err)
		}
	}
	dovecotShared.use(t)
	return newDovecot(t, &Container{Name: sharedDovecotName, t: t, net: "bridge"})
}

// OwnDovecot starts a Dovecot for this test alone, and returns when it greets (a second or two). WithEnv sets what its image
// knows, such as DOVECOT_CLEARTEXT=yes or DOVECOT_FORMAT=maildir.
func OwnDovecot(t testing.TB, options ...Option) *Dovecot {
	t.Helper()
	o := dovecotOptions()
	for _, option := range options {
		option(t, &o)
	}
	return newDovecot(t, Run(t, Image(t, "dovecot"), o))
}

func dovecotOptions() Options {
	return Options{
		Ports: map[int]int{portIMAP: 0, portIMAPS: 0},
		Env:   []string{"DOVECOT_PASSWORD=" + randomHex(12), "DOVECOT_TOKEN_KEY=" + randomHex(32)},
		Args:  []string{"--read-only", "--tmpfs", "/run", "--tmpfs", "/tmp"},
	}
}

func newDovecot(t testing.TB, c *Container) *Dovecot {
	t.Helper()
	d := &Dovecot{Container: c, Host: "127.0.0.1", Port: c.Port(portIMAP), TLSPort: c.Port(portIMAPS)}
	for line := range strings.Lines(Docker(t, "inspect", "-f", "{{range .Config.Env}}{{println .}}{{end}}", c.Name)) {
		switch name, value, _ := strings.Cut(strings.TrimSpace(line), "="); name {
		case "DOVECOT_PASSWORD":
			d.Password = value
		case "DOVECOT_TOKEN_KEY":
			d.tokenKey = value
		}
	}
	d.WaitReady()
	d.CAFile = filepath.Join(t.TempDir(), "dovecot.pem")
	if err := os.WriteFile(d.CAFile, []byte(d.Exec("cat", "/run/dovecot-conf/tls.pem")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return d
}

// WaitReady returns when Dovecot greets over TLS, which it does once it takes logins.
func (d *Dovecot) WaitReady() {
	d.t.Helper()
	if !waitFor(time.Minute, func() bool {
		c, err := d.dial()
		if err != nil {
			return false
		}
		_ = c.conn.Close()
		return true
	}) {
		d.t.Fatalf("Dovecot in %s does not greet on port %d after a minute", d.Name, d.TLSPort)
	}
}

// Start starts a stopped or killed Dovecot and returns when it takes connections. Its certificate is a new one where it is of its own
// making: CAFile is written anew.
func (d *Dovecot) Start() {
	d.t.Helper()
	d.Container.Start()
	d.WaitReady()
	if err := os.WriteFile(d.CAFile, []byte(d.Exec("cat", "/run/dovecot-conf/tls.pem")+"\n"), 0o600); err != nil {
		d.t.Fatal(err)
	}
}

// User returns the name of a mailbox that no other test has.
func (d *Dovecot) User(name string) string { return name + "-" + randomHex(4) + "@trap.example" }

// Token returns a bearer token that opens user's mailbox until expiry.
func (d *Dovecot) Token(user string, expiry time.Time) string {
	d.t.Helper()
	claims, err := json.Marshal(map[string]any{"sub": user, "iat": time.Now().Unix(), "exp": expiry.Unix()})
	if err != nil {
		d.t.Fatal(err)
	}
	signed := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + base64.RawURLEncoding.EncodeToString(claims)
	mac := hmac.New(sha256.New, []byte(d.tokenKey))
	mac.Write([]byte(signed))
	return signed + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// Deliver puts mails into a folder, in this order, byte for byte but for this: Dovecot itself hands out CR LF for a bare LF. The
// folder is made when it is not there.
func (d *Dovecot) Deliver(user, folder string, mails ...[]byte) {
	d.t.Helper()
	d.Import(user, folder, len(mails), func(i int) []byte { return mails[i] })
}

// Import puts count mails into a folder, thousands a second. mail returns the i-th.
func (d *Dovecot) Import(user, folder string, count int, mail func(i int) []byte) {
	d.t.Helper()
	c := d.login(user)
	defer c.logout()
	if !strings.EqualFold(folder, "INBOX") {
		_, _ = c.do("CREATE " + quoted(folder)) // it may be there
	}
	for first := 0; first < count; first += appendBatch {
		c.must(c.appendMails(folder, first, min(first+appendBatch, count), mail))
	}
}

// Mails returns what a folder holds, in the order of the UIDs, by EXAMINE, which changes nothing. A folder that is not there
// holds nothing.
func (d *Dovecot) Mails(user, folder string) []DovecotMail {
	d.t.Helper()
	c := d.login(user)
	defer c.logout()
	if _, err := c.do("EXAMINE " + quoted(folder)); err != nil {
		if strings.Contains(err.Error(), "[NONEXISTENT]") {
			return nil
		}
		c.must(err)
	}
	lines, err := c.do("UID FETCH 1:* (UID FLAGS)")
	c.must(err)
	var mails []DovecotMail
	for _, line := range lines {
		if m := fetchedFlags.FindStringSubmatch(line); m != nil {
			uid, _ := strconv.ParseUint(m[1], 10, 32)
			mail := DovecotMail{UID: uint32(uid)}
			for flag := range strings.FieldsSeq(m[2]) {
				if flag != `\Recent` {
					mail.Flags = append(mail.Flags, flag)
				}
			}
			mails = append(mails, mail)
		}
	}
	return mails
}

var fetchedFlags = regexp.MustCompile(`^\* \d+ FETCH \(UID (\d+) FLAGS \(([^)]*)\)`)

// Count tells how many mails a folder holds, and how many of them are unseen. It costs little in a large mailbox.
func (d *Dovecot) Count(user, folder string) (messages, unseen int) {
	d.t.Helper()
	c := d.login(user)
	defer c.logout()
	lines, err := c.do("STATUS " + quoted(folder) + " (MESSAGES UNSEEN)")
	c.must(err)
	for _, line := range lines {
		if m := statusLine.FindStringSubmatch(line); m != nil {
			messages, _ = strconv.Atoi(m[1])
			unseen, _ = strconv.Atoi(m[2])
			return messages, unseen
		}
	}
	d.t.Fatalf("STATUS of %s: %q", folder, lines)
	return 0, 0
}

var statusLine = regexp.MustCompile(`MESSAGES (\d+) UNSEEN (\d+)`)

// Do sends IMAP commands to user's mailbox, one after the other on one connection, and returns the lines of all answers. One
// that is not answered OK ends the test.
func (d *Dovecot) Do(user string, commands ...string) []string {
	d.t.Helper()
	c := d.login(user)
	defer c.logout()
	var all []string
	for _, command := range commands {
		lines, err := c.do(command)
		c.must(err)
		all = append(all, lines...)
	}
	return all
}

// UIDValidity returns the UIDVALIDITY of a folder.
func (d *Dovecot) UIDValidity(user, folder string) uint32 {
	d.t.Helper()
	for _, line := range d.Do(user, "STATUS "+quoted(folder)+" (UIDVALIDITY)") {
		if _, text, found := strings.Cut(line, "(UIDVALIDITY "); found {
			n, err := strconv.ParseUint(strings.TrimSuffix(text, ")"), 10, 32)
			if err != nil {
				d.t.Fatalf("%q: %v", line, err)
			}
			return uint32(n)
		}
	}
	d.t.Fatalf("no UIDVALIDITY of %s", folder)
	return 0
}

// SetUIDValidity gives a folder another UIDVALIDITY, as a restore from a backup does. Sessions that have it open are closed by Dovecot.
func (d *Dovecot) SetUIDValidity(user, folder string, value uint32) {
	d.t.Helper()
	d.Exec("doveadm", "mailbox", "update", "-u", user, "--uid-validity", strconv.FormatUint(uint64(value), 10), folder)
}

// SetReadOnly takes away, or gives back, the user's right to change a folder in any way.
func (d *Dovecot) SetReadOnly(user, folder string, readOnly bool) {
	d.t.Helper()
	if readOnly {
		d.Exec("doveadm", "acl", "set", "-u", user, folder, "owner", "lookup", "read")
		return
	}
	d.Exec("doveadm", "acl", "delete", "-u", user, folder, "owner")
}

// Kick closes all connections of user.
func (d *Dovecot) Kick(user string) { d.t.Helper(); d.Exec("doveadm", "kick", user) }

// Connections tells how many connections are logged in.
func (d *Dovecot) Connections() int {
	d.t.Helper()
	return max(0, strings.Count(d.Exec("doveadm", "who", "-1"), "\n"))
}

// imapClient is as much of an IMAP client as the rig itself needs: it must not share a line of code with what the tests test.
type imapClient struct {
	t    testing.TB
	conn net.Conn
	read *bufio.Reader
	tags int
}

// dial connects over TLS and reads the greeting. The certificate is the container's own, which the rig need not doubt.
func (d *Dovecot) dial() (*imapClient, error) {
	raw, err := dial(net.JoinHostPort(d.Host, strconv.Itoa(d.TLSPort)), 10*time.Second)
	if err != nil {
		return nil, err
	}
	_ = raw.SetDeadline(time.Now().Add(imapTimeout))
	c := &imapClient{t: d.t, conn: tls.Client(raw, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12})}
	c.read = bufio.NewReaderSize(c.conn, 64<<10)
	if line, err := c.line(); err != nil || !strings.HasPrefix(line, "* OK ") {
		_ = c.conn.Close()
		return nil, fmt.Errorf("greeting %q: %w", line, err)
	}
	return c, nil
}

func (d *Dovecot) login(user string) *imapClient {
	d.t.Helper()
	c, err := d.dial()
	if err != nil {
		d.t.Fatalf("Dovecot in %s: %v", d.Name, err)
	}
	_, err = c.do("LOGIN " + quoted(user) + " " + quoted(d.Password))
	c.must(err)
	return c
}

func (c *imapClient) must(err error) {
	c.t.Helper()
	if err != nil {
		_ = c.conn.Close()
		c.t.Fatalf("Dovecot: %v", err)
	}
}

func (c *imapClient) logout() {
	_, _ = c.do("LOGOUT")
	_ = c.conn.Close()
}

// do sends a command and returns the untagged lines of its answer.
func (c *imapClient) do(command string) ([]string, error) {
	c.tags++
	tag := "r" + strconv.Itoa(c.tags)
	if _, err := io.WriteString(c.conn, tag+" "+command+"\r\n"); err != nil {
		return nil, err
	}
	return c.answer(tag, command)
}

// answer reads up to the tagged line. The commands of the rig are answered without literals.
func (c *imapClient) answer(tag, command string) ([]string, error) {
	var lines []string
	for {
		line, err := c.line()
		if err != nil {
			return nil, fmt.Errorf("%.40s: %w", command, err)
		}
		if status, tagged := strings.CutPrefix(line, tag+" "); tagged {
			if !strings.HasPrefix(status, "OK ") {
				return nil, fmt.Errorf("%.40s: %s", command, status)
			}
			return lines, nil
		}
		lines = append(lines, line)
	}
}

func (c *imapClient) line() (string, error) {
	line, err := c.read.ReadString('\n')
	return strings.TrimRight(line, "\r\n"), err
}

// appendMails sends one APPEND with the mails first to last-1 in literals that wait for no leave (RFC 7888).
func (c *imapClient) appendMails(folder string, first, last int, mail func(int) []byte) error {
	c.tags++
	tag := "r" + strconv.Itoa(c.tags)
	w := bufio.NewWriterSize(c.conn, 64<<10)
	_, _ = fmt.Fprintf(w, "%s APPEND %s", tag, quoted(folder))
	for i := first; i < last; i++ {
		body := mail(i)
		_, _ = fmt.Fprintf(w, " {%d+}\r\n", len(body))
		_, _ = io.Copy(w, bytes.NewReader(body))
	}
	_, _ = w.WriteString("\r\n")
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := c.answer(tag, "APPEND")
	return err
}

func quoted(text string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(text) + `"`
}

func randomHex(bytes int) string {
	random := make([]byte, bytes)
	_, _ = rand.Read(random)
	return hex.EncodeToString(random)
}
