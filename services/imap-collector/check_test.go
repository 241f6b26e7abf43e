package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"spamtraps.internal/libs/daemon"
	"spamtraps.internal/libs/rig"
)

// check looks at one mailbox as a new user would, and returns what is printed with single spaces.
func check(t *testing.T, entry string) (code int, said string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "mailboxes.yml")
	if err := os.WriteFile(path, []byte(entry), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errs buffer
	p := &program{stdout: &out}
	code = daemon.Main(p.service(), daemon.Process{Args: []string{"check", "-m", path}, Stdout: &out, Stderr: &errs})
	return code, strings.Join(strings.Fields(out.String()+errs.String()), " ")
}

// Each mistake that a new user makes with a Dovecot, and what the text tells to do about it.
func TestCheckAgainstDovecot(t *testing.T) {
	d := rig.SharedDovecot(t)
	user := d.User("check")
	d.Deliver(user, "INBOX", []byte("Subject: 1\r\n\r\n"), []byte("Subject: 2\r\n\r\n"))
	d.Deliver(user, "Junk", []byte("Subject: 3\r\n\r\n"))
	d.Do(user, "SELECT INBOX", `UID STORE 1 +FLAGS (\Seen)`)
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte(d.Token(user, time.Now().Add(-time.Hour))), 0o600); err != nil {
		t.Fatal(err)
	}
	good := fmt.Sprintf("- {username: %s, password: %s, host: %s, port: %d, ca_file: %s}\n", user, d.Password, d.Host, d.TLSPort, d.CAFile)
	changed := func(pairs ...string) string { return strings.NewReplacer(pairs...).Replace(good) }
	tls, plain := fmt.Sprintf("port: %d", d.TLSPort), fmt.Sprintf("port: %d", d.Port)
	ca := ", ca_file: " + d.CAFile
	for _, row := range []struct {
		name, entry string
		code        int
		want        []string
	}{
		{"nothing wrong", good, daemon.ExitOK, []string{"TLS PLAIN, password INBOX 2 1 1", `Junk (\Junk by its attribute) 1 1 1`, "2 mails would be fetched. Nothing was changed."}},
		{"STARTTLS", changed(tls, plain+", tls: starttls"), daemon.ExitOK, []string{"STARTTLS PLAIN, password INBOX 2 1 1"}},
		{"self-signed certificate", changed(ca, ""), daemon.ExitFailed, []string{"FAILED (tls)", "what to do: the certificate is self-signed", "ca_file"}},
		{"certificate not checked", changed(ca, ", check_cert: no"), daemon.ExitOK, []string{"TLS, certificate not checked"}},
		{"another name", changed(d.Host, "ip6-localhost"), daemon.ExitFailed, []string{"FAILED"}},
		{"wrong password", changed(d.Password, "hunter2-hunter2"), daemon.ExitFailed, []string{"FAILED (credentials)", "what to do: user name or password is wrong"}},
		{"an ended token", changed("password: "+d.Password, "oauth: {token_file: "+token+"}"), daemon.ExitFailed, []string{"FAILED (credentials)"}},
		{"not encrypted", changed(tls, plain+", tls: none", ca, ""), daemon.ExitFailed, []string{"what to do: the server takes no password on a connection that anybody can read"}},
		{"TLS at the other port", changed(tls, plain), daemon.ExitFailed, []string{"what to do: this port does not begin with TLS"}},
		{"a port with nothing", changed(tls, "port: 1"), daemon.ExitFailed, []string{"what to do: nothing listens on this port"}},
		{"a folder that is not there", changed(ca, ca+", folders: [INBOX, Spam, '\\All']"), daemon.ExitFailed, []string{
			"INBOX 2 1 1", "Spam FAILED (refused)", "what to do: there is no folder of this name", `no \All among them`,
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			code, said := check(t, row.entry)
			for _, want := range row.want {
				if !strings.Contains(said, want) {
					t.Errorf("no %q in %s", want, said)
				}
			}
			if code != row.code || strings.Contains(said, d.Password) || strings.Contains(said, "hunter2") {
				t.Errorf("exit code %d: %s", code, said)
			}
		})
	}
	if messages, unseen := d.Count(user, "INBOX"); messages != 2 || unseen != 1 {
		t.Errorf("afterwards %d mails, %d unseen", messages, unseen)
	}
}
