package command

import (
	"regexp"
	"strings"

	"spamtraps.internal/imap-collector/internal/account"
)

// advice is what to do about a problem that is known by the server's or the system's words. The first row that fits counts, so what is particular
// comes first.
type advice struct {
	text *regexp.Regexp                      // in the error, in any case
	host *regexp.Regexp                      // the server; nil: any
	when func(account *account.Account) bool // nil: always
	do   string
}

func words(pattern string) *regexp.Regexp { return regexp.MustCompile(`(?i)` + pattern) }

var (
	gmail     = words(`(^|\.)(gmail|googlemail|google)\.com$`)
	exchange  = words(`(^|\.)(outlook|office365|office|hotmail|live)\.com$|outlook\.cn$`)
	yahoo     = words(`(^|\.)(yahoo|aol|att|verizon)\.(com|net)$|(^|\.)yahoo\.`)
	icloud    = words(`(^|\.)(me|icloud|apple)\.com$`)
	refusedIt = words(`AUTHENTICATIONFAILED|LOGIN failed|AUTHENTICATE failed|invalid credentials|authentication failed|login (error|fail)|bad (user|password|username)|password.*incorrect`)
)

func usesPort(port int) func(*account.Account) bool {
	return func(a *account.Account) bool { return a.Port == port }
}

func usesTLS(mode account.TLSMode) func(*account.Account) bool {
	return func(a *account.Account) bool { return a.TLS == mode }
}

func both(a, b func(*account.Account) bool) func(*account.Account) bool {
	return func(box *account.Account) bool { return a(box) && b(box) }
}

const (
	appPassword = "Google takes no account password here: switch on 2-step verification, make an app password at myaccount.google.com/apppasswords and use that, or use oauth (docs/oauth.md)"
	askLess     = "the provider limits logins, connections or traffic: wait an hour; then lower IMAP_MAX_PER_HOST and IMAP_LOGIN_RATE, raise poll_interval, and see that no other program reads this mailbox"
)

var advices = []advice{
	// The way there.
	{text: words(`through the proxy.*(username/password|authentication failed)`), do: "the proxy does not take its user and password"},
	{text: words(`through the proxy`), do: "the proxy cannot be reached, or cannot reach the server: is proxy right?"},

	// Logins, provider by provider.
	{text: words(`application-specific password required|app password`), host: gmail, do: appPassword},
	{text: words(`web ?login required|log in via your web browser|WEBALERT`), host: gmail, do: "Google wants to see a person: log in to this account with a browser from this address once (accounts.google.com/DisplayUnlockCaptcha), or use oauth (docs/oauth.md)"},
	{text: words(`not enabled for IMAP|IMAP access is disabled|IMAP is (disabled|not enabled)`), host: gmail, do: "IMAP is switched off: in Gmail's settings, Forwarding and POP/IMAP, enable IMAP; for Workspace the administrator does so for the domain"},
	{text: refusedIt, host: gmail, do: appPassword},
	{text: words(`authenticated but not connected`), do: "the token is good, but this mailbox is not open to it: is username the mailbox's own address? IMAP must be on for it (Set-CASMailbox -ImapEnabled $true), and an application needs a service principal in Exchange with FullAccess to the mailbox (Add-MailboxPermission; docs/oauth.md)"},
	{text: words(`AUTHENTICATE failed`), host: exchange, do: "Exchange does not take the token: it needs the scope IMAP.AccessAsUser.All, or for an application the permission IMAP.AccessAsApp with an administrator's consent, and username must be the mailbox's address (docs/oauth.md)"},
	{text: refusedIt, host: exchange, do: "Microsoft takes no passwords over IMAP any more: use oauth (docs/oauth.md)"},
	{text: words(`basic authentication is (disabled|blocked)|BasicAuthBlocked`), do: "Microsoft takes no passwords over IMAP any more: use oauth (docs/oauth.md)"},
	{text: refusedIt, host: yahoo, do: "this provider takes an app password only: make one in the account's security settings"},
	{text: refusedIt, host: icloud, do: "Apple takes an app-specific password only: make one at account.apple.com; username is the name before @icloud.com"},
	{text: words(`parol prilozheniya|application password|app(lication)?[- ]specific`), do: "this provider takes an application password only: make one in the account's security settings"},
	{text: words(`unsafe login|kefu@`), do: "the provider takes known programs only: allow IMAP for third parties in the web mail's settings and use the authorisation code that it shows as password"},
	{text: words(`service is not open|not enabled for IMAP|does not have access rights|IMAP.{0,20}(is )?(disabled|not enabled|switched off|turned off|not allowed|not activated|deactivated)|(enable|activate|turn on) IMAP`), do: "IMAP is switched off for this mailbox: switch it on in the web mail's settings, often under POP3/IMAP or external programs"},
	{text: words(`too many (failed|bad|invalid|login)|temporarily (blocked|locked)|account (is )?(locked|blocked|suspended|disabled|abnormal)`), do: "the provider has locked the account for a while, or for good: log in to its web mail to see"},
	{text: words(`\[THROTTLED\]|\[LIMIT\]|OVERQUOTA|bandwidth limit|too many simultaneous|too many connections|rate limit|maximum number of connections|throttled`), do: askLess},
	{text: words(`\[UNAVAILABLE\]|\[INUSE\]|\[SERVERBUG\]|temporary (authentication )?failure|try again later`), do: "the server says that this passes: try again later"},

	// Tokens.
	{text: words(`AADSTS7000222`), do: "the application's client secret has ended: make another one in Entra, Certificates & secrets"},
	{text: words(`AADSTS7000215|invalid_client`), do: "client_secret is not that of client_id: in Entra copy the secret's value, not its id; at Google both come in one JSON file (docs/oauth.md)"},
	{text: words(`AADSTS65001|consent_required|interaction_required`), do: "nobody has allowed the application to read this mailbox: give consent (docs/oauth.md)"},
	{text: words(`AADSTS90002|AADSTS900023`), do: "tenant is not that of a directory: take its id from Entra's overview"},
	{text: words(`AADSTS700016|unauthorized_client`), do: "the provider does not know client_id in this tenant, or does not allow it this grant (docs/oauth.md)"},
	{text: words(`invalid_grant`), do: "the refresh token has ended, was revoked, or is another application's: log in anew (docs/oauth.md); at Google those of an application in testing end after 7 days"},
	{text: words(`invalid_scope`), do: "the provider does not know one of the scopes (docs/oauth.md)"},
	{text: words(`does not offer (OAUTHBEARER|XOAUTH2)`), do: "the server takes no tokens: give a password instead of oauth, or another mechanism"},
	{text: words(`takes no password, but OAuth`), do: "give oauth instead of a password (docs/oauth.md)"},
	{text: words(`offers no login with a password on this connection`), when: usesTLS(account.TLSNone), do: "the server takes no password on a connection that anybody can read: leave tls: none out"},
	{text: words(`offers no login with a password on this connection`), do: "the server takes no passwords: it may want oauth (docs/oauth.md), or IMAP is switched off for passwords"},
	{text: refusedIt, do: "user name or password is wrong, or the provider wants an app password or has IMAP switched off for this mailbox: try both in the provider's web mail and look into its settings"},

	// Certificates.
	{text: words(`certificate has expired|is not yet valid`), do: "the server's certificate has ended, or this machine's clock is wrong"},
	{text: words(`certificate is valid for|doesn't contain any IP SANs|not valid for any names`), do: "the certificate is another server's: give as host the name that stands in it"},
	{text: words(`unknown authority|self-signed|self signed|certificate is not trusted`), do: "the certificate is self-signed or of an authority of your own: give that certificate as ca_file; check_cert: no would let anybody in between read passwords and mail"},
	{text: words(`holds no certificate in PEM`), do: "ca_file must be a certificate in PEM, beginning with -----BEGIN CERTIFICATE-----"},
	{text: words(`protocol version|no supported versions|handshake failure`), do: "the server speaks no TLS 1.2 or later, or asks for a client certificate: nothing here can mend that"},

	// Ports and networks.
	{text: words(`does not speak TLS here`), when: usesPort(143), do: "port 143 begins in plain text: take tls: implicit out, or take port 993"},
	{text: words(`does not speak TLS here`), do: "this port does not begin with TLS: is it that of IMAP? With tls: starttls it may be the right one; 993 is usual with TLS"},
	{text: words(`\+OK|before greeting: in continue-req`), do: "a POP3 server answers on this port: IMAP is usually on 993"},
	{text: words(`"220[ -]|ESMTP`), do: "an SMTP server answers on this port: IMAP is usually on 993"},
	{text: words(`HTTP/1`), do: "a web server answers on this port: IMAP is usually on 993"},
	{text: words(`before greeting`), do: "what answers on this port is no IMAP server: IMAP is usually on 993"},
	{text: words(`greeting.*(timeout|deadline|not answer|EOF|reset|in time)`), when: both(usesTLS(account.TLSStartTLS), usesPort(993)), do: "port 993 begins with TLS: take tls: starttls out"},
	{text: words(`greeting.*(timeout|deadline|not answer|in time)`), when: func(a *account.Account) bool { return a.TLS != account.TLSImplicit }, do: "the server waits for us to begin, as one does that begins with TLS: try tls: implicit"},
	{text: words(`STARTTLS.*the server says`), do: "the server does not do STARTTLS: try port 993, which begins with TLS; tls: none would send passwords and mail readable"},
	{text: words(`connection refused`), do: "nothing listens on this port of the host: IMAP is usually on 993, or on 143 with STARTTLS"},
	{text: words(`no such host|server misbehaving|name resolution`), do: "the host's name is not known: is it written right? Providers' help pages name their IMAP server"},
	{text: words(`i/o timeout|deadline exceeded|network is unreachable|no route to host`), do: "the host does not answer on this port: a firewall in between, a wrong port, or a provider that lets no one in from this network"},

	// Folders.
	{text: words(`(SELECT|EXAMINE).*(NONEXISTENT|doesn't exist|does not exist|unknown mailbox|no such mailbox|not exist)`), do: "there is no folder of this name: the line of folders above has those that there are; names are case-sensitive, with the server's own delimiter"},
	{text: words(`(SELECT|EXAMINE).*(unsafe|ID )`), do: "the provider wants to be told who we are before it opens a folder (ID): it did not take our answer"},
	{text: words(`(SELECT|EXAMINE).*(NOPERM|ACL|permission|denied)`), do: "this user may not open the folder"},
	{text: words(`SERVERBUG|internal error`), do: "the server has a problem of its own: try again later"},
}

// adviceFor returns what to do about an error, "" when nobody knows.
func adviceFor(a *account.Account, problem string) string {
	for _, row := range advices {
		if row.text.MatchString(problem) && (row.host == nil || row.host.MatchString(strings.ToLower(a.Host))) && (row.when == nil || row.when(a)) {
			return row.do
		}
	}
	return ""
}
