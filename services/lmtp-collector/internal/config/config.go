// Package config is everything that an operator can set of lmtp-collector, in one struct.
package config

import (
	"fmt"

	"spamtraps.internal/libs/amqp"
	"spamtraps.internal/libs/daemon"
	"spamtraps.internal/lmtp-collector/internal/lmtp"
	"spamtraps.internal/lmtp-collector/internal/maildir"
)

// Config is the configuration of lmtp-collector. libs/daemon fills it and explains its tags; start from Defaults.
type Config struct {
	daemon.Common
	AMQP    amqp.Config    `section:"AMQP" desc:"RabbitMQ, where every mail goes"`
	LMTP    lmtp.Config    `section:"LMTP" desc:"Where mail comes from"`
	Maildir maildir.Config `section:"MAILDIR" desc:"Where mail waits while RabbitMQ cannot take it"`
}

// Defaults returns what holds when nothing is set.
func Defaults() Config {
	return Config{
		Common:  daemon.Common{AdminAddr: "127.0.0.1:9602"},
		AMQP:    amqp.Defaults(),
		LMTP:    lmtp.Defaults(),
		Maildir: maildir.Defaults(),
	}
}

// Validate reports what no section can say alone, and settles how large a mail may be.
func (c *Config) Validate(bad func(name, problem string)) {
	switch most := c.AMQP.MaxMessageBytes; {
	case c.LMTP.MaxMessageBytes == 0:
		c.LMTP.MaxMessageBytes = most
	case c.LMTP.MaxMessageBytes > most:
		bad("LMTP_MAX_MESSAGE_BYTES", fmt.Sprintf("must be at most AMQP_MAX_MESSAGE_BYTES (%d), or mail is taken that the broker never takes, not %d",
			most, c.LMTP.MaxMessageBytes))
	}
	switch least := 4 * c.LMTP.MaxMessageBytes; {
	case c.LMTP.Memory == 0:
		c.LMTP.Memory = max(defaultMemory, least)
	case c.LMTP.Memory < least:
		bad("LMTP_MEMORY", fmt.Sprintf("must be at least four times LMTP_MAX_MESSAGE_BYTES (%d), not %d", least, c.LMTP.Memory))
	}
}

// defaultMemory is eight of the largest mails that RabbitMQ 4 takes by default.
const defaultMemory = 128 << 20
