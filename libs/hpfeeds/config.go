package hpfeeds

import (
	"fmt"
	"net"
	"strconv"
	"strings"

	"spamtraps.internal/libs/secret"
)

// Config says which broker to connect to, as whom, and which channels are meant. Start from Defaults; the tags are what the configuration
// loader and the documentation are made from. The secret and the authorities are read when a connection is made, each time anew.
type Config struct {
	Host   string        `env:"HOST" empty:"nothing is re-published" desc:"Host name or address of the hpfeeds broker."`
	Port   int           `env:"PORT" desc:"Port of the hpfeeds broker."`
	Ident  string        `env:"IDENT" desc:"Ident at the hpfeeds broker."`
	Secret secret.Secret `env:"SECRET" desc:"Secret of the ident."`

	TLS       bool   `env:"TLS" desc:"Speak TLS (1.2 or later) to the hpfeeds broker. Without it everybody on the way can read the mails, and try out secrets on what he has read."`
	CheckCert bool   `env:"CHECK_CERT" desc:"Verify the broker's certificate and its name, when TLS is on."`
	CAFile    string `env:"CA_FILE" empty:"the system's authorities" desc:"PEM file of the authorities that the broker's certificate is verified with."`

	Channels   []string `env:"CHANNELS" desc:"Channels that every mail is published to."`
	MaxPayload int64    `env:"MAX_PAYLOAD" unit:"bytes" desc:"Largest payload that the broker and its subscribers take; 0 is what fits into the frame of 1 MiB and 5 bytes that the Python broker and its clients take."`
}

// Defaults returns the configuration of the package that this one replaces, less its well-known secret.
func Defaults() Config {
	return Config{
		Port:      10000,
		Ident:     "writer",
		CheckCert: true,
		Channels:  []string{"spam.mails"},
	}
}

// IsSet tells whether there is a broker to connect to.
func (c *Config) IsSet() bool { return c.Host != "" }

// Validate reports every setting that is out of range or contradicts another, once each. It reads no file: one that cannot be read when a
// connection is made is a temporary fault, because whoever provides it may be about to.
func (c *Config) Validate(bad func(name, problem string)) {
	if strings.ContainsAny(c.Host, " /@") || (strings.Contains(c.Host, ":") && net.ParseIP(c.Host) == nil) {
		bad("HOST", "must be a host name or an address, without a port")
	}
	if c.Port < 1 || c.Port > 65535 {
		bad("PORT", fmt.Sprintf("must be between 1 and 65535, not %d", c.Port))
	}
	if problem := CheckName(c.Ident); problem != "" {
		bad("IDENT", problem)
	}
	if c.IsSet() && !c.Secret.IsSet() {
		bad("SECRET", "must be set when HPFEEDS_HOST is")
	}
	if c.CAFile != "" && !c.TLS {
		bad("CA_FILE", "contradicts HPFEEDS_TLS, which is off")
	}
	if c.CAFile != "" && c.TLS && !c.CheckCert {
		bad("CA_FILE", "contradicts HPFEEDS_CHECK_CERT, which is off")
	}
	c.validateChannels(bad)
	if c.MaxPayload < 0 || c.MaxPayload > maxMaxPayload {
		bad("MAX_PAYLOAD", fmt.Sprintf("must be between 1 and %d, or 0 for what the Python broker takes, not %d", maxMaxPayload, c.MaxPayload))
	}
}

// maxMaxPayload is as far as a frame's length can be trusted: the Python broker reads it as a signed number, and no mail is so large.
const maxMaxPayload = 1 << 30

func (c *Config) validateChannels(bad func(name, problem string)) {
	if len(c.Channels) == 0 {
		bad("CHANNELS", "must not be empty")
	}
	seen := make(map[string]bool)
	for i, channel := range c.Channels {
		switch problem := CheckName(channel); {
		case problem != "":
			bad("CHANNELS", fmt.Sprintf("%s; entry %d is not so", problem, i+1))
			return
		case seen[channel]:
			bad("CHANNELS", fmt.Sprintf("must name each channel once, and %q is there twice", channel))
			return
		}
		seen[channel] = true
	}
}

// CheckName returns what is wrong with an ident or the name of a channel, or nothing: "must have at most 127 bytes, not 300".
func CheckName(name string) string {
	switch {
	case name == "":
		return "must not be empty"
	case len(name) > MaxName:
		return fmt.Sprintf("must have at most %d bytes, not %d", MaxName, len(name))
	case Sanitize(name) != name:
		return "must be printable text"
	}
	return ""
}

// PayloadLimit returns the size of the largest payload that may be published to a channel.
func (c *Config) PayloadLimit(channel string) int64 {
	if c.MaxPayload > 0 {
		return c.MaxPayload
	}
	return MaxPayload(c.Ident, channel)
}

// Address returns host:port.
func (c *Config) Address() string { return net.JoinHostPort(c.Host, strconv.Itoa(c.Port)) }
