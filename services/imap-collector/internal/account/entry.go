package account

import (
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"spamtraps.internal/imap-collector/internal/auth"
	"spamtraps.internal/libs/secret"
)

// Entry is a mailbox as it is configured: an entry of mailboxes.yml, or the variables IMAP_…. The tags are those of libs/daemon.
type Entry struct {
	Name     string        `env:"NAME" desc:"What logs and metrics call the mailbox."`
	ID       string        `env:"ID" desc:"Its identity in message ids and in what is remembered."`
	Protocol string        `env:"PROTOCOL" desc:"imap; nothing else there is."`
	Host     string        `env:"HOST" desc:"Server."`
	Port     int           `env:"PORT" desc:"Port."`
	Username string        `env:"USERNAME" desc:"User name."`
	Password secret.Secret `env:"PASSWORD" desc:"Password."`
	OAuth    auth.OAuth    `section:"OAUTH" desc:"Tokens instead of a password"`

	TLS       TLSMode       `env:"TLS" oneof:"implicit starttls none" desc:"How the connection is made private."`
	CheckCert bool          `env:"CHECK_CERT" desc:"Verify the server's certificate."`
	CAFile    string        `env:"CA_FILE" empty:"the system's authorities" desc:"Authorities to verify it with."`
	Proxy     secret.Secret `env:"PROXY" empty:"none" desc:"socks5:// proxy to connect through."`

	Folders         []string      `env:"FOLDERS" desc:"Folders to collect from."`
	Fetch           FetchMode     `env:"FETCH" oneof:"unseen all new" desc:"Which mails."`
	After           After         `env:"AFTER" desc:"What becomes of a mail that the broker has."`
	PollInterval    time.Duration `env:"POLL_INTERVAL" desc:"How often to look at the folders."`
	MaxMessageBytes int64         `env:"MAX_MESSAGE_BYTES" unit:"bytes" desc:"Largest mail that is collected."`
	Enabled         bool          `env:"ENABLED" desc:"Whether to collect from it."`
}

// The ports of RFC 8314 §7.3 and RFC 9051 §2.1.
const (
	portImplicit = 993
	portPlain    = 143
)

// leastPoll keeps us from being a nuisance to servers.
const leastPoll = 10 * time.Second

// maxNameBytes is what a metric's label, a column of a table and an AMQP header take well.
const maxNameBytes = 200

// Validate reports what is wrong with one mailbox, and settles what follows from the rest.
func (e *Entry) Validate(bad func(name, problem string)) {
	if e.Protocol != "" && !strings.EqualFold(e.Protocol, "imap") {
		bad("PROTOCOL", fmt.Sprintf("must be imap, not %q", e.Protocol))
	}
	e.validateServer(bad)
	e.validateUser(bad)
	e.validateTLS(bad)
	folders, problem := folderNames(e.Folders)
	switch {
	case problem != "":
		bad("FOLDERS", problem)
	case len(folders) == 0:
		bad("FOLDERS", "must not be empty")
	}
	e.Folders = folders
	if e.PollInterval < leastPoll {
		bad("POLL_INTERVAL", fmt.Sprintf("must be at least %s, not %s", leastPoll, e.PollInterval))
	}
	if e.MaxMessageBytes < 1 {
		bad("MAX_MESSAGE_BYTES", fmt.Sprintf("must be at least 1, not %d", e.MaxMessageBytes))
	}
	if problem := badProxy(e.Proxy); problem != "" {
		bad("PROXY", problem)
	}
	e.settleNames(bad)
}

func (e *Entry) validateServer(bad func(name, problem string)) {
	e.Host = strings.TrimSuffix(strings.TrimPrefix(e.Host, "["), "]")
	switch {
	case e.Host == "":
		bad("HOST", "must be given")
	case net.ParseIP(e.Host) != nil:
	case strings.ContainsAny(e.Host, " /@:") || strings.ContainsFunc(e.Host, unicode.IsControl):
		bad("HOST", "must be a name or an address alone: the port is `port`")
	}
	if e.Port < 0 || e.Port > 65535 {
		bad("PORT", fmt.Sprintf("must be between 1 and 65535, not %d", e.Port))
	}
	switch {
	case e.TLS == "" && e.Port == portPlain:
		e.TLS = TLSStartTLS
	case e.TLS == "":
		e.TLS = TLSImplicit
	}
	switch {
	case e.Port != 0:
	case e.TLS == TLSImplicit:
		e.Port = portImplicit
	default:
		e.Port = portPlain
	}
}

func (e *Entry) validateUser(bad func(name, problem string)) {
	switch {
	case e.Username == "":
		bad("USERNAME", "must be given")
	case len(e.Username) > maxNameBytes || !utf8.ValidString(e.Username) || strings.ContainsFunc(e.Username, unicode.IsControl):
		bad("USERNAME", fmt.Sprintf("must be text in UTF-8 of at most %d bytes", maxNameBytes))
	}
	switch {
	case e.Password.IsSet() && e.OAuth.IsSet():
		bad("PASSWORD", "contradicts oauth: choose one")
	case !e.Password.IsSet() && !e.OAuth.IsSet():
		bad("PASSWORD", "must be given, or password_file, or oauth")
	}
}

func (e *Entry) validateTLS(bad func(name, problem string)) {
	switch {
	case e.CAFile != "" && !e.CheckCert:
		bad("CA_FILE", "contradicts check_cert, which is off")
	case e.CAFile != "" && e.TLS == TLSNone:
		bad("CA_FILE", "contradicts tls: none")
	}
}

// settleNames makes name and id of what there is.
func (e *Entry) settleNames(bad func(name, problem string)) {
	who := e.Username + "@" + strings.ToLower(e.Host)
	for _, field := range []struct {
		name string
		text *string
	}{{"ID", &e.ID}, {"NAME", &e.Name}} {
		switch text := *field.text; {
		case text == "":
			*field.text = who
		case len(text) > maxNameBytes || !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl):
			bad(field.name, fmt.Sprintf("must be text in UTF-8 of at most %d bytes", maxNameBytes))
		}
	}
}

// badProxy says what is wrong with a proxy, without showing it.
func badProxy(proxy secret.Secret) string {
	if !proxy.IsSet() {
		return ""
	}
	text, err := proxy.Reveal()
	if err != nil {
		return "" // its file is complained of already
	}
	parsed, err := url.Parse(text)
	switch {
	case err != nil || parsed.Hostname() == "" || parsed.Path != "" || parsed.RawQuery != "":
		return "must be a URL like socks5://user:password@proxy.example:1080, with reserved characters percent-encoded"
	case parsed.Scheme != "socks5" && parsed.Scheme != "socks5h":
		return "must begin with socks5://"
	case parsed.Port() == "":
		return "must end in the proxy's port, as in socks5://proxy.example:1080"
	}
	return ""
}

// account returns the mailbox that is meant.
func (e *Entry) account(tokens *auth.Tokens, expunge bool) Account {
	a := Account{
		Name: e.Name, ID: e.ID, Host: e.Host, Port: e.Port, Username: e.Username, TLS: e.TLS, CheckCert: e.CheckCert, CAFile: e.CAFile, Proxy: e.Proxy,
		Folders: e.Folders, Fetch: e.Fetch, After: e.After, Expunge: expunge,
		PollInterval: e.PollInterval, MaxMessageBytes: e.MaxMessageBytes, Enabled: e.Enabled,
	}
	if e.OAuth.IsSet() {
		a.Login = tokens.Login(auth.Mailbox{ID: e.ID, Name: e.Name, Username: e.Username, Host: e.Host, Port: e.Port, Proxy: e.Proxy}, e.OAuth)
	} else {
		a.Login = auth.NewPassword(e.Username, e.Password)
	}
	return a
}
