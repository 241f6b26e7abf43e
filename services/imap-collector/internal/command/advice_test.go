package command

import (
	"strings"
	"testing"

	"spamtraps.internal/imap-collector/internal/account"
)

// What servers, token endpoints and the system say, and the piece of advice that belongs to it. Each row of the table is here.
func TestAdvice(t *testing.T) {
	used := make(map[string]bool)
	for _, row := range []struct{ host, problem, want string }{
		{"imap.gmail.com", `log in: the server says "NO [ALERT] Application-specific password required: https://support.google.com/accounts/answer/185833 (Failure)"`, "apppasswords"},
		{"imap.gmail.com", `log in: the server says "NO [AUTHENTICATIONFAILED] Invalid credentials (Failure)"`, "apppasswords"},
		{"imap.gmail.com", `log in: the server says "NO [WEBALERT https://accounts.google.com/signin/continue] Web login required."`, "DisplayUnlockCaptcha"},
		{"imap.gmail.com", `log in: the server says "NO [ALERT] Your account is not enabled for IMAP use."`, "Forwarding and POP/IMAP"},
		{"imap.gmail.com", `log in: the server says "NO [ALERT] IMAP access is disabled for your domain. Please contact your domain administrator"`, "Workspace"},
		{"imap.gmail.com", `log in: the server says "NO [ALERT] Too many simultaneous connections. (Failure)"`, "limits logins"},
		{"imap.gmail.com", `SELECT "INBOX": the server says "NO [OVERQUOTA] Account exceeded command or bandwidth limits."`, "limits logins"},
		{"outlook.office365.com", `EXAMINE "INBOX": the server says "BAD User is authenticated but not connected."`, "FullAccess"},
		{"outlook.office365.com", `log in: the server says "NO AUTHENTICATE failed."`, "IMAP.AccessAsApp"},
		{"outlook.office365.com", `log in: the server says "NO LOGIN failed."`, "no passwords over IMAP"},
		{"mail.example", `log in: the server says "NO LOGIN failed: Basic authentication is disabled, BasicAuthBlocked"`, "no passwords over IMAP"},
		{"imap.mail.yahoo.com", `log in: the server says "NO [AUTHENTICATIONFAILED] LOGIN Invalid credentials"`, "app password only"},
		{"imap.mail.me.com", `log in: the server says "NO [AUTHENTICATIONFAILED] Authentication Failed"`, "account.apple.com"},
		{"imap.mail.ru", `log in: the server says "NO [AUTHENTICATIONFAILED] NEOBHODIM parol prilozheniya https://help.mail.ru/"`, "application password only"},
		{"imap.163.com", `EXAMINE "INBOX": the server says "NO EXAMINE Unsafe Login. Please contact kefu@188.com for help"`, "authorisation code"},
		{"imap.yandex.ru", `log in: the server says "NO [AUTHENTICATIONFAILED] LOGIN This user does not have access rights to this service"`, "switch it on"},
		{"imap.gmx.net", `log in: the server says "NO IMAP is disabled for this account"`, "switch it on"},
		{"mail.example", `log in: the server says "NO Too many failed logins, account locked"`, "has locked the account"},
		{"mail.example", `log in: the server says "NO [THROTTLED] LOGIN Rate limit hit."`, "limits logins"},
		{"mail.example", `log in: the server says "NO [UNAVAILABLE] Temporary authentication failure."`, "passes"},
		{"m", `log in: get a token from login.microsoftonline.com: it said invalid_client: AADSTS7000222: The provided client secret keys are expired.`, "has ended: make another"},
		{"m", `log in: get a token from login.microsoftonline.com: it said invalid_client: AADSTS7000215: Invalid client secret provided.`, "not its id"},
		{"m", `log in: get a token from login.microsoftonline.com: it said invalid_grant: AADSTS65001: The user or administrator has not consented`, "give consent"},
		{"m", `log in: get a token from login.microsoftonline.com: it said invalid_request: AADSTS90002: Tenant 'x' not found.`, "Entra's overview"},
		{"m", `log in: get a token from login.microsoftonline.com: it said unauthorized_client: AADSTS700016: Application was not found`, "does not know client_id"},
		{"m", `log in: get a token from oauth2.googleapis.com: it said invalid_grant: Token has been expired or revoked.`, "7 days"},
		{"m", `log in: get a token from login.example: it said invalid_scope`, "one of the scopes"},
		{"m", `log in: the server does not offer OAUTHBEARER or XOAUTH2: it takes no token on this connection`, "takes no tokens"},
		{"m", `log in: the server takes no password, but OAuth 2.0: see docs/oauth.md`, "give oauth"},
		{"m", `log in: the server offers no login with a password on this connection`, "it may want oauth"},
		{"plain", `log in: the server offers no login with a password on this connection`, "leave tls: none out"},
		{"mail.example", `log in: the server says "NO [AUTHENTICATIONFAILED] Authentication failed."`, "user name or password is wrong"},
		{"m", `TLS handshake: tls: failed to verify certificate: x509: certificate has expired or is not yet valid: current time 2026-11-25`, "clock"},
		{"m", `TLS handshake: tls: failed to verify certificate: x509: certificate is valid for mx.example, not m`, "the name that stands in it"},
		{"m", `TLS handshake: tls: failed to verify certificate: x509: certificate signed by unknown authority`, "self-signed"},
		{"m", `read ca_file: /ca.pem holds no certificate in PEM`, "BEGIN CERTIFICATE"},
		{"m", `TLS handshake: remote error: tls: protocol version not supported`, "TLS 1.2"},
		{"port143", `TLS handshake: the server does not speak TLS here: is the port right, or tls: starttls meant?`, "take port 993"},
		{"m", `TLS handshake: the server does not speak TLS here: is the port right, or tls: starttls meant?`, "does not begin with TLS"},
		{"m", `greeting: what the server sends makes no sense: expected "*", got "+OK POP3 ready"`, "POP3"},
		{"m", `greeting: what the server sends makes no sense: got error before greeting: in response: imapwire: expected SP, got "s"`, "no IMAP server"},
		{"m", `greeting: what the server sends makes no sense: got error before greeting: in continue-req: imapwire: expected CRLF, got "O"`, "POP3"},
		{"m", `make the connection private: greeting: the server says "220 mx ESMTP Postfix"`, "SMTP server"},
		{"m", `greeting: the server sent "HTTP/1.1 400 Bad Request"`, "web server"},
		{"starttls993", `make the connection private: greeting: context deadline exceeded`, "take tls: starttls out"},
		{"plain", `greeting: the server did not answer in time`, "try tls: implicit"},
		{"m", `make the connection private: STARTTLS: the server says "S1 BAD Unknown command"`, "does not do STARTTLS"},
		{"m", `connect to m:993: dial tcp 192.0.2.1:993: connect: connection refused`, "nothing listens"},
		{"m", `connect to m:993: dial tcp: lookup m: no such host`, "written right"},
		{"m", `connect to m:993 through the proxy p:1080: socks connect tcp p:1080->m:993: username/password authentication failed`, "its user and password"},
		{"m", `connect to m:993 through the proxy p:1080: socks connect tcp: unknown error host unreachable`, "cannot be reached"},
		{"m", `connect to m:993: dial tcp 192.0.2.1:993: i/o timeout`, "a firewall"},
		{"m", `EXAMINE "Spam": the server says "NO [NONEXISTENT] Mailbox doesn't exist: Spam"`, "no folder of this name"},
		{"m", `EXAMINE "INBOX": the server says "NO ID required"`, "who we are"},
		{"m", `EXAMINE "Shared": the server says "NO [NOPERM] Permission denied"`, "may not open"},
		{"m", `EXAMINE "INBOX": the server says "NO Internal error occurred. Refer to server log for more information."`, "problem of its own"},
	} {
		a := &account.Account{Host: row.host, Port: 993, TLS: account.TLSImplicit}
		switch row.host {
		case "plain":
			a.TLS, a.Port = account.TLSNone, 143
		case "port143":
			a.Port = 143
		case "starttls993":
			a.TLS = account.TLSStartTLS
		}
		got := adviceFor(a, row.problem)
		used[got] = true
		if !strings.Contains(got, row.want) {
			t.Errorf("%s\n  got  %s\n  want …%s…", row.problem, got, row.want)
		}
	}
	for _, row := range advices {
		if !used[row.do] {
			t.Errorf("nothing leads to %s: %s", row.text, row.do)
		}
	}
	if got := adviceFor(&account.Account{}, "the moon is full"); got != "" {
		t.Errorf("advice on anything: %s", got)
	}
}
