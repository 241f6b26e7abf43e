// Package config is everything that an operator can set of imap-collector, in one struct.
package config

import (
	"fmt"
	"strings"
	"time"

	"spamtraps.internal/imap-collector/internal/account"
	"spamtraps.internal/imap-collector/internal/auth"
	"spamtraps.internal/libs/amqp"
	"spamtraps.internal/libs/daemon"
	"spamtraps.internal/libs/secret"
)

// Config is the configuration of imap-collector. libs/daemon fills it and explains its tags; start from Defaults.
type Config struct {
	daemon.Common
	MailboxConfig string `env:"MAILBOX_CONFIG" flag:"mailbox-config" short:"m" empty:"IMAP_HOST names the one mailbox" desc:"YAML file with the mailboxes (docs/imap.md); that of the Python package is read as it is."`
	ShardIndex    int    `env:"SHARD_INDEX" desc:"Which of SHARD_COUNT processes this one is, counted from 0."`
	ShardCount    int    `env:"SHARD_COUNT" desc:"How many processes share the mailboxes; each mailbox belongs to one of them, by its id."`

	AMQP amqp.Config `section:"AMQP" desc:"RabbitMQ, where every mail goes"`
	IMAP IMAP        `section:"IMAP" desc:"Where mail comes from"`

	// Accounts are all mailboxes, of every shard, also those that are switched off. Validate loads them.
	Accounts []account.Account
	// Tokens are what their logins get tokens from.
	Tokens *auth.Tokens
}

// IMAP is what holds for every mailbox that does not say otherwise in MAILBOX_CONFIG, and the one mailbox when there is no such file.
type IMAP struct {
	FetchAll   bool `env:"FETCH_ALL" flag:"fetch-all" short:"a" desc:"Fetch all mails, not only those that are unseen: IMAP_FETCH=all."`
	Delete     bool `env:"DELETE" flag:"delete" short:"d" desc:"Delete mails after the broker has confirmed them: IMAP_AFTER=delete."`
	Continuous bool `env:"CONTINUOUS" flag:"continuous-fetch" short:"c" desc:"Wait for new mail until told to stop; otherwise go through all mailboxes once and end."`

	Host     string          `env:"HOST" empty:"MAILBOX_CONFIG names the mailboxes" desc:"Server of the one mailbox."`
	Port     int             `env:"PORT" desc:"Its port; 0 is 993, and 143 unless IMAP_TLS is implicit."`
	Username string          `env:"USERNAME" empty:"none" desc:"User name there."`
	Password secret.Secret   `env:"PASSWORD" desc:"Password there."`
	TLS      account.TLSMode `env:"TLS" oneof:"implicit starttls none" empty:"starttls on port 143, else implicit" desc:"How the connection is made private; without it nothing is sent, unless this is none."`
	ID       string          `env:"ID" empty:"username@host" desc:"Identity of the one mailbox in message ids; keep it when host or user name change."`

	CheckCert       bool              `env:"CHECK_CERT" desc:"Verify servers' certificates and names."`
	CAFile          string            `env:"CA_FILE" empty:"the system's authorities" desc:"PEM file of the authorities that servers' certificates are verified with."`
	Proxy           secret.Secret     `env:"PROXY" empty:"none" desc:"Proxy to connect through, as socks5://user:password@host:port; it resolves the servers' names."`
	Folders         []string          `env:"FOLDERS" desc:"Folders to collect from: names, patterns (*, %, ?) and special uses (\\Junk, \\All)."`
	Fetch           account.FetchMode `env:"FETCH" oneof:"unseen all new" empty:"unseen, or all with IMAP_FETCH_ALL" desc:"Which mails: those without \\Seen, all, or those that are not remembered in IMAP_STATE."`
	After           account.After     `env:"AFTER" empty:"seen, or delete with IMAP_DELETE" desc:"What becomes of a mail that the broker has confirmed: seen, delete, move:FOLDER or nothing."`
	Expunge         string            `env:"EXPUNGE" oneof:"own always" desc:"Where a server cannot expunge our mails alone: own leaves them marked \\Deleted, always expunges those of others too."`
	PollInterval    time.Duration     `env:"POLL_INTERVAL" desc:"How often at least each folder is looked at, beside IDLE."`
	MaxMessageBytes int64             `env:"MAX_MESSAGE_BYTES" unit:"bytes" desc:"Largest mail that is collected; larger ones stay where they are. 0 is AMQP_MAX_MESSAGE_BYTES."`

	State      string        `env:"STATE" empty:"nothing is remembered beyond the process" desc:"Folder to remember in what was published and cannot be marked in its mailbox, and refresh tokens that a provider has renewed."`
	Memory     int64         `env:"MEMORY" unit:"bytes" desc:"How many bytes of mail are held at once, of all mailboxes. 0 is 128MiB, and at least twice IMAP_MAX_MESSAGE_BYTES."`
	MaxPerHost int           `env:"MAX_PER_HOST" desc:"Connections to one server at once; 0 is any number."`
	LoginRate  float64       `env:"LOGIN_RATE" desc:"Logins to one server in a second."`
	Timeout    time.Duration `env:"TIMEOUT" desc:"How long a server may be silent while it owes an answer."`
	Parallel   int           `env:"PARALLEL" desc:"Mailboxes that are worked on at once when not continuous."`
	StaleAfter time.Duration `env:"STALE_AFTER" desc:"How long a mailbox may go without a successful look before /readyz and a metric name it."`
}

// Defaults returns what holds when nothing is set.
func Defaults() Config {
	return Config{
		Common:     daemon.Common{AdminAddr: "127.0.0.1:9601"},
		ShardCount: 1,
		AMQP:       amqp.Defaults(),
		IMAP: IMAP{
			CheckCert:    true,
			Folders:      []string{"INBOX", `\Junk`},
			Expunge:      "own",
			PollInterval: 5 * time.Minute,
			LoginRate:    10,
			Timeout:      time.Minute,
			Parallel:     16,
			StaleAfter:   30 * time.Minute,
		},
	}
}

// Validate reports what the tags of the section cannot say.
func (i *IMAP) Validate(bad func(name, problem string)) {
	if i.FetchAll && i.Fetch != "" && i.Fetch != account.FetchAll {
		bad("FETCH_ALL", "contradicts IMAP_FETCH, which is "+string(i.Fetch))
	}
	if i.Delete && i.After.Kind != "" && i.After.Kind != account.AfterDelete {
		bad("DELETE", "contradicts IMAP_AFTER, which is "+i.After.String())
	}
	if i.MaxPerHost < 0 {
		bad("MAX_PER_HOST", fmt.Sprintf("must not be negative, as %d is", i.MaxPerHost))
	}
	if i.LoginRate <= 0 {
		bad("LOGIN_RATE", "must be more than 0")
	}
	if i.Parallel < 1 || i.Parallel > 1000 {
		bad("PARALLEL", fmt.Sprintf("must be between 1 and 1000, not %d", i.Parallel))
	}
	if i.Timeout < time.Second || i.Timeout > 10*time.Minute {
		bad("TIMEOUT", fmt.Sprintf("must be between 1s and 10m, not %s", i.Timeout))
	}
	if i.StaleAfter <= 0 {
		bad("STALE_AFTER", "must be more than 0s")
	}
}

// Validate reports what no section can say alone, settles how large a mail may be, and loads the mailboxes.
func (c *Config) Validate(bad func(name, problem string)) {
	if c.ShardCount < 1 {
		bad("SHARD_COUNT", fmt.Sprintf("must be at least 1, not %d", c.ShardCount))
	} else if c.ShardIndex < 0 || c.ShardIndex >= c.ShardCount {
		bad("SHARD_INDEX", fmt.Sprintf("must be between 0 and %d, because SHARD_COUNT is %d, not %d", c.ShardCount-1, c.ShardCount, c.ShardIndex))
	}
	c.settleSizes(bad)
	c.settleModes()
	c.Tokens = auth.NewTokens(c.IMAP.State)
	c.loadAccounts(bad)
}

const defaultMemory = 128 << 20

func (c *Config) settleSizes(bad func(name, problem string)) {
	if c.IMAP.MaxMessageBytes == 0 {
		c.IMAP.MaxMessageBytes = c.AMQP.MaxMessageBytes
	}
	switch least := 2 * c.IMAP.MaxMessageBytes; {
	case c.IMAP.Memory == 0:
		c.IMAP.Memory = max(defaultMemory, least)
	case c.IMAP.Memory < least:
		bad("IMAP_MEMORY", fmt.Sprintf("must be at least twice IMAP_MAX_MESSAGE_BYTES (%d), not %d", least, c.IMAP.Memory))
	}
}

func (c *Config) settleModes() {
	if c.IMAP.Fetch == "" {
		c.IMAP.Fetch = account.FetchUnseen
		if c.IMAP.FetchAll {
			c.IMAP.Fetch = account.FetchAll
		}
	}
	if c.IMAP.After.Kind == "" {
		c.IMAP.After.Kind = account.AfterSeen
		if c.IMAP.Delete {
			c.IMAP.After.Kind = account.AfterDelete
		}
	}
}

func (c *Config) loadAccounts(bad func(name, problem string)) {
	rules := account.Rules{
		Defaults: account.Entry{
			CheckCert: c.IMAP.CheckCert, CAFile: c.IMAP.CAFile, Proxy: c.IMAP.Proxy,
			Folders: c.IMAP.Folders, Fetch: c.IMAP.Fetch, After: c.IMAP.After, PollInterval: c.IMAP.PollInterval, MaxMessageBytes: c.IMAP.MaxMessageBytes,
			Enabled: true,
		},
		MaxMessageBytes: c.AMQP.MaxMessageBytes, StaleAfter: c.IMAP.StaleAfter, Expunge: c.IMAP.Expunge == "always", Forgets: c.IMAP.State == "", Continuous: c.IMAP.Continuous,
	}
	switch {
	case c.MailboxConfig != "":
		c.refuseOne(bad)
		accounts, problems := account.Load(c.MailboxConfig, rules, c.Tokens)
		for _, problem := range problems {
			about, text, _ := strings.Cut(problem, " ")
			bad(about, text)
		}
		c.Accounts = accounts
	case c.IMAP.Host != "":
		one := rules.Defaults
		one.Host, one.Port, one.Username, one.Password = c.IMAP.Host, c.IMAP.Port, c.IMAP.Username, c.IMAP.Password
		one.TLS, one.ID = c.IMAP.TLS, c.IMAP.ID
		c.Accounts = []account.Account{account.One(one, rules, c.Tokens, func(name, problem string) { bad("IMAP_"+name, problem) })}
	default:
		bad("MAILBOX_CONFIG", "must name a file with mailboxes (-m), or IMAP_HOST the server of one")
	}
}

// refuseOne reports what names one mailbox beside a file of mailboxes.
func (c *Config) refuseOne(bad func(name, problem string)) {
	for _, s := range []struct {
		name  string
		given bool
	}{
		{"IMAP_HOST", c.IMAP.Host != ""},
		{"IMAP_PORT", c.IMAP.Port != 0},
		{"IMAP_USERNAME", c.IMAP.Username != ""},
		{"IMAP_PASSWORD", c.IMAP.Password.IsSet()},
		{"IMAP_TLS", c.IMAP.TLS != ""},
		{"IMAP_ID", c.IMAP.ID != ""},
	} {
		if s.given {
			bad(s.name, "is for one mailbox without a file, and MAILBOX_CONFIG names a file of mailboxes: choose one")
		}
	}
}

// Mine are the mailboxes of this shard that are switched on.
func (c *Config) Mine() []account.Account {
	return account.Select(c.Accounts, c.ShardIndex, c.ShardCount)
}
