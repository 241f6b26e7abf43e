// Package config is everything that an operator can set of hpfeeds-broker, in one struct.
package config

import (
	"fmt"
	"net"
	"slices"
	"strings"

	"spamtraps.internal/libs/daemon"
	"spamtraps.internal/libs/hpfeeds"
	"spamtraps.internal/libs/hpfeeds/hpfeedstest"
	"spamtraps.internal/libs/secret"
)

// Config is the configuration of hpfeeds-broker. libs/daemon fills it and explains its tags; start from Defaults.
type Config struct {
	daemon.Common
	Broker Broker `section:"BROKER" desc:"The broker"`
}

// Broker are the settings of the broker itself.
type Broker struct {
	Listen       string        `env:"LISTEN" desc:"Address to listen on."`
	Name         string        `env:"NAME" desc:"What the broker calls itself."`
	Users        string        `env:"USERS" empty:"the idents writer and reader" desc:"JSON file of those who may log in, in the form of the Python broker: {\"ident\": {\"secret\": \"…\", \"pubchans\": [\"…\"], \"subchans\": [\"…\"]}}; \"*\" is any channel. Replaces writer and reader."`
	Channels     []string      `env:"CHANNELS" desc:"Channels that the ident writer may publish to, and the ident reader may subscribe to."`
	FenceChannel string        `env:"FENCE_CHANNEL" empty:"none" desc:"Channel that writer may publish to and subscribe to, for the fence of hpfeeds-bridge."`
	WriterSecret secret.Secret `env:"WRITER_SECRET" empty:"see BROKER_SECRETS" desc:"Secret of the ident writer."`
	ReaderSecret secret.Secret `env:"READER_SECRET" empty:"see BROKER_SECRETS" desc:"Secret of the ident reader."`
	Secrets      string        `env:"SECRETS" empty:"who has no secret cannot log in" desc:"Folder with the secrets of writer and reader that are not set, in writer/password and reader/password; those that are absent are made at the start."`
	TLSCertFile  string        `env:"TLS_CERT_FILE" empty:"no TLS" desc:"PEM file of the certificate; with it all connections speak TLS."`
	TLSKeyFile   string        `env:"TLS_KEY_FILE" empty:"no TLS" desc:"PEM file of the key to the certificate."`
	Manners      string        `env:"MANNERS" oneof:"python tentacool hpfbroker" desc:"Which broker it behaves like where they differ."`
	MaxFrame     int64         `env:"MAX_FRAME" unit:"bytes" desc:"Length of the largest frame; 0 is that of the broker it behaves like (python: 1 MiB and 5 bytes)."`
	Hold         int           `env:"HOLD" desc:"How many subscribers each of BROKER_CHANNELS must have before a message is taken there; publishers wait until then."`
	Exact        bool          `env:"EXACT" desc:"Take a message only when those before it on the same connection are with the kernels of their subscribers, so that a kill loses nothing of what a fence has let through."`
	Script       string        `env:"SCRIPT" empty:"none" desc:"Misbehave instead, to everybody: the name of a script, such as never-reads or auth-error."`
}

// Defaults returns what holds when nothing is set.
func Defaults() Config {
	return Config{
		Common: daemon.Common{AdminAddr: "127.0.0.1:9604"},
		Broker: Broker{Listen: "127.0.0.1:10000", Name: "spamtraps", Channels: []string{"spam.mails"}, FenceChannel: "spam.fence", Manners: "python"},
	}
}

var manners = map[string]hpfeedstest.Manners{"python": hpfeedstest.Python, "tentacool": hpfeedstest.Tentacool, "hpfbroker": hpfeedstest.HPFBroker}

// Kind returns which broker it behaves like.
func (c *Broker) Kind() hpfeedstest.Manners { return manners[c.Manners] }

// Held returns how many subscribers each channel must have.
func (c *Broker) Held() map[string]int {
	held := make(map[string]int)
	for _, channel := range c.Channels {
		held[channel] = c.Hold
	}
	return held
}

// Validate reports every setting that is out of range or contradicts another, once each.
func (c *Broker) Validate(bad func(name, problem string)) {
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		bad("LISTEN", fmt.Sprintf("must be host:port, not %q", c.Listen))
	}
	if len(c.Name) > 255 {
		bad("NAME", fmt.Sprintf("must have at most 255 bytes, not %d", len(c.Name)))
	}
	for i, channel := range c.Channels {
		if problem := hpfeeds.CheckName(channel); problem != "" {
			bad("CHANNELS", fmt.Sprintf("%s; entry %d is not so", problem, i+1))
			break
		}
	}
	if (c.TLSCertFile == "") != (c.TLSKeyFile == "") {
		bad("TLS_CERT_FILE", "and BROKER_TLS_KEY_FILE must be set together")
	}
	if c.MaxFrame != 0 && (c.MaxFrame < 1000 || c.MaxFrame > 1<<30) {
		bad("MAX_FRAME", fmt.Sprintf("must be between 1000 and 1073741824, or 0 for the usual, not %d", c.MaxFrame))
	}
	if c.Hold < 0 {
		bad("HOLD", fmt.Sprintf("must not be negative, and is %d", c.Hold))
	}
	if c.Script != "" && !slices.Contains(hpfeedstest.Scripts(), c.Script) {
		bad("SCRIPT", fmt.Sprintf("must be one of %s, not %q", strings.Join(hpfeedstest.Scripts(), ", "), c.Script))
	}
}
