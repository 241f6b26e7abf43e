package rig_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"spamtraps.internal/libs/rig"
)

func TestSharedDovecotHoldsMail(t *testing.T) {
	d := rig.SharedDovecot(t)
	user := d.User("holds")
	odd := []byte("Subject: odd\r\n\r\n\x01\xff\rbare\r\nlines\r\n.\r\n")
	d.Deliver(user, "INBOX", odd, []byte("Subject: 2\r\n\r\n2\r\n"))
	d.Import(user, "INBOX", 1200, func(i int) []byte { return fmt.Appendf(nil, "Subject: %d\r\n\r\ntext\r\n", i) })
	d.Deliver(user, "Spam/Old", odd)
	if mails := d.Mails(user, "INBOX"); len(mails) != 1202 || mails[0].UID != 1 || mails[1201].UID != 1202 || len(mails[0].Flags) != 0 {
		t.Errorf("INBOX holds %d mails: %.200v", len(mails), mails)
	}
	if mails := d.Mails(user, "Spam/Old"); len(mails) != 1 {
		t.Errorf("Spam/Old holds %v", mails)
	}
	if mails := d.Mails(user, "None"); mails != nil {
		t.Errorf("a folder that is not there holds %v", mails)
	}
	d.Do(user, "SELECT INBOX", `UID STORE 2 +FLAGS (\Seen)`)
	if mails := d.Mails(user, "INBOX"); !slices.Contains(mails[1].Flags, `\Seen`) {
		t.Errorf("no flag: %v", mails[1])
	}
	if messages, unseen := d.Count(user, "INBOX"); messages != 1202 || unseen != 1201 {
		t.Errorf("%d messages, %d unseen", messages, unseen)
	}
	if got := strings.Join(d.Do(user, "EXAMINE INBOX", "UID FETCH 1 BODY.PEEK[]"), "\r\n"); !bytes.Contains([]byte(got), bytes.TrimRight(odd, "\r\n")) {
		t.Errorf("the mail is not what was delivered: %q", got)
	}
	d.SetUIDValidity(user, "INBOX", 7777)
	if got := d.UIDValidity(user, "INBOX"); got != 7777 {
		t.Errorf("UIDVALIDITY %d", got)
	}
	d.SetReadOnly(user, "INBOX", true)
	if got := d.Do(user, "SELECT INBOX", "NOOP"); !strings.Contains(strings.Join(got, "\n"), `PERMANENTFLAGS ()`) {
		t.Errorf("the folder is not read-only: %q", got)
	}
	d.SetReadOnly(user, "INBOX", false)
	d.Do(user, "SELECT INBOX", `UID STORE 3 +FLAGS (\Seen)`)
	if other := d.User("holds"); other == user || len(d.Mails(other, "INBOX")) != 0 {
		t.Error("two tests would share a mailbox")
	}
}

// What a collector meets: a certificate that its CA file vouches for, no password in clear text, tokens, Junk.
func TestOwnDovecotSpeaksAsAProvider(t *testing.T) {
	d := rig.OwnDovecot(t, rig.WithEnv("DOVECOT_FORMAT=maildir"), rig.WithEnv("DOVECOT_QUOTA=1M"))
	pem, err := os.ReadFile(d.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	connect := func() (*bufio.Reader, net.Conn) {
		raw, err := dial(t, net.JoinHostPort(d.Host, strconv.Itoa(d.TLSPort)))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = raw.Close() })
		conn := tls.Client(raw, &tls.Config{RootCAs: pool, ServerName: "127.0.0.1", MinVersion: tls.VersionTLS12})
		return bufio.NewReader(conn), conn
	}
	ask := func(r *bufio.Reader, c net.Conn, command string) string {
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		if _, err := io.WriteString(c, "t "+command+"\r\n"); err != nil {
			t.Fatal(err)
		}
		var all strings.Builder
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				t.Fatalf("%s: %v", command, err)
			}
			all.WriteString(line)
			if strings.HasPrefix(line, "t ") {
				return all.String()
			}
		}
	}
	for _, login := range []struct {
		expiry time.Duration
		want   string
	}{{time.Hour, "t OK"}, {-time.Hour, "t NO"}} {
		token := base64.StdEncoding.EncodeToString([]byte("user=u\x01auth=Bearer " + d.Token("u", time.Now().Add(login.expiry)) + "\x01\x01"))
		r, c := connect()
		if got := ask(r, c, "AUTHENTICATE XOAUTH2 "+token+"\r\n"); !strings.Contains(got, login.want) {
			t.Errorf("a token of %s: %s", login.expiry, got)
		}
	}
	r, c := connect()
	if got := ask(r, c, "LOGIN u wrong"); !strings.Contains(got, "t NO [AUTHENTICATIONFAILED]") {
		t.Errorf("a wrong password: %s", got)
	}
	if got := ask(r, c, "LOGIN u "+d.Password); !strings.Contains(got, "t OK") {
		t.Errorf("the password: %s", got)
	}
	if got := ask(r, c, `LIST "" "*"`); !strings.Contains(got, `\Junk`) {
		t.Errorf("no Junk: %s", got)
	}
	d.Deliver("u", "INBOX", bytes.Repeat([]byte("x"), 700<<10))
	if got := ask(r, c, "SELECT INBOX"); !strings.Contains(got, "* 1 EXISTS") {
		t.Errorf("SELECT: %s", got)
	}
	if got := ask(r, c, "COPY 1 Trash"); !strings.Contains(got, "t NO [OVERQUOTA]") {
		t.Errorf("beyond the quota: %s", got)
	}
	if d.Connections() == 0 {
		t.Error("nobody is logged in")
	}
	d.Kill()
	if _, err := r.ReadString('\n'); err == nil {
		t.Error("a killed Dovecot still talks")
	}
	d.Start()
	if mails := d.Mails("u", "INBOX"); len(mails) != 1 {
		t.Errorf("after the kill: %v", mails)
	}
}
