package lmtp

import (
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Config says where to listen, what to take and what one peer may use. libs/daemon explains the tags; start from Defaults.
type Config struct {
	Listen string `env:"LISTEN" desc:"Where to listen: HOST:PORT, :PORT for all interfaces, or unix:/path of a socket."`
	Port   int    `env:"-" flag:"port" short:"p" desc:"Port to listen on, in place of the one in LMTP_LISTEN."`

	Domains []string `env:"DOMAINS" empty:"any domain" desc:"Domains that mail is taken for; recipients elsewhere are refused, those without a domain are not."`

	XForwardFrom []Peers `env:"XFORWARD_FROM" empty:"nobody" desc:"MTAs whose XFORWARD is believed: addresses, networks like 192.0.2.0/24, unix for those on the socket. They say who sent a mail and what their queue id of it is."`

	MaxMessageBytes int64 `env:"MAX_MESSAGE_BYTES" unit:"bytes" empty:"as AMQP_MAX_MESSAGE_BYTES" desc:"Largest mail that is taken; it cannot be more than AMQP_MAX_MESSAGE_BYTES."`
	Memory          int64 `env:"MEMORY" unit:"bytes" empty:"128MiB, or four of the largest mails" desc:"Memory for all mails that are on their way. Beyond it large mails are read more slowly, and then told to try again later; small ones always pass."`
	MaxConnections  int   `env:"MAX_CONNECTIONS" desc:"How many connections may be open; for a further one the longest idle is closed, or else it is told to try again later."`
	MaxPerPeer      int   `env:"MAX_CONNECTIONS_PER_PEER" desc:"How many connections one address may have open; 0 is any. Those through the unix socket do not count."`
	MaxErrors       int   `env:"MAX_ERRORS" desc:"How many bad commands a session may have before it is closed; each mail begins anew."`
	MaxRecipients   int   `env:"MAX_RECIPIENTS" desc:"How many recipients a transaction may have; the MTA sends further ones in its next."`

	TLSCertFile     string `env:"TLS_CERT_FILE" empty:"no TLS" desc:"PEM file of our own certificate, to offer STARTTLS. Read again for each connection."`
	TLSKeyFile      string `env:"TLS_KEY_FILE" empty:"no TLS" desc:"PEM file of the key to it."`
	TLSClientCAFile string `env:"TLS_CLIENT_CA_FILE" empty:"anybody" desc:"PEM file of the authorities of the client certificates that are asked for. With it, mail comes through TLS with such a certificate, or through the unix socket."`

	IdleTimeout        time.Duration `env:"IDLE_TIMEOUT" desc:"How long a peer may be silent, between commands and within a mail."`
	TransactionTimeout time.Duration `env:"TRANSACTION_TIMEOUT" desc:"How long a peer may take from MAIL to the end of the mail."`
	MinRate            int64         `env:"MIN_RATE" unit:"bytes" desc:"Least bytes a second that a peer must send from MAIL to the end of the mail, once it was waited for longer than LMTP_IDLE_TIMEOUT in all; 0 is any."`
}

// Defaults returns what holds when nothing is set.
func Defaults() Config {
	return Config{
		Listen:             "127.0.0.1:24",
		MaxConnections:     200,
		MaxRecipients:      1000,
		MaxErrors:          20,
		IdleTimeout:        5 * time.Minute,
		TransactionTimeout: 30 * time.Minute,
		MinRate:            500, // as Postfix's smtpd_min_data_rate
	}
}

// Validate reports every setting that is out of range, and puts Port into Listen.
func (c *Config) Validate(bad func(name, problem string)) {
	c.validateListen(bad)
	for _, domain := range c.Domains {
		if domain == "" || strings.ContainsAny(domain, "@ <>") {
			bad("DOMAINS", fmt.Sprintf("must be domains like example.org, not %q", domain))
		}
	}
	if c.MaxMessageBytes < 0 {
		bad("MAX_MESSAGE_BYTES", fmt.Sprintf("must be at least 1, not %d", c.MaxMessageBytes))
	}
	if c.MaxConnections < 1 {
		bad("MAX_CONNECTIONS", fmt.Sprintf("must be at least 1, not %d", c.MaxConnections))
	}
	if c.MaxPerPeer < 0 {
		bad("MAX_CONNECTIONS_PER_PEER", fmt.Sprintf("must not be negative, not %d", c.MaxPerPeer))
	}
	if c.MaxErrors < 1 {
		bad("MAX_ERRORS", fmt.Sprintf("must be at least 1, not %d", c.MaxErrors))
	}
	c.validateTLS(bad)
	if c.MaxRecipients < 1 {
		bad("MAX_RECIPIENTS", fmt.Sprintf("must be at least 1, not %d", c.MaxRecipients))
	}
	if c.IdleTimeout <= 0 {
		bad("IDLE_TIMEOUT", fmt.Sprintf("must be more than 0s, not %s", c.IdleTimeout))
	}
	if c.MinRate < 0 {
		bad("MIN_RATE", fmt.Sprintf("must not be negative, not %d", c.MinRate))
	}
	if c.TransactionTimeout < c.IdleTimeout {
		bad("TRANSACTION_TIMEOUT", fmt.Sprintf("must not be less than LMTP_IDLE_TIMEOUT (%s), not %s", c.IdleTimeout, c.TransactionTimeout))
	}
}

func (c *Config) validateListen(bad func(name, problem string)) {
	if path, ok := strings.CutPrefix(c.Listen, unixPrefix); ok {
		switch {
		case !filepath.IsAbs(path):
			bad("LISTEN", fmt.Sprintf("must be unix: and an absolute path, not %q", c.Listen))
		case c.Port != 0:
			bad("port", "contradicts LMTP_LISTEN, which is a unix socket: choose one")
		}
		return
	}
	host, port, err := net.SplitHostPort(c.Listen)
	if err != nil || !isPort(port) {
		bad("LISTEN", fmt.Sprintf("must be HOST:PORT, :PORT or unix:/path, not %q", c.Listen))
		return
	}
	switch {
	case c.Port < 0 || c.Port > 65535:
		bad("port", fmt.Sprintf("must be between 1 and 65535, not %d", c.Port))
	case c.Port != 0:
		c.Listen = net.JoinHostPort(host, strconv.Itoa(c.Port))
	}
}

func isPort(text string) bool {
	_, err := strconv.ParseUint(text, 10, 16)
	return err == nil
}
