// Package config is everything that an operator can set of hpfeeds-bridge, in one struct.
package config

import (
	"slices"

	"spamtraps.internal/hpfeeds-bridge/internal/bridge"
	"spamtraps.internal/libs/amqp"
	"spamtraps.internal/libs/daemon"
	"spamtraps.internal/libs/hpfeeds"
)

// Config is the configuration of hpfeeds-bridge. libs/daemon fills it and explains its tags; start from Defaults.
type Config struct {
	daemon.Common
	AMQP    amqp.Config    `section:"AMQP" desc:"RabbitMQ, where every mail comes from"`
	HPFeeds hpfeeds.Config `section:"HPFEEDS" desc:"The hpfeeds broker, where every mail goes"`
	Bridge  bridge.Config  `section:"BRIDGE" desc:"How mail gets from the one to the other"`

	// On tells whether there is a broker to publish to.
	On bool
}

// Defaults returns what holds when nothing is set.
func Defaults() Config {
	return Config{
		Common:  daemon.Common{AdminAddr: "127.0.0.1:9603"},
		AMQP:    amqp.Defaults(),
		HPFeeds: hpfeeds.Defaults(),
		Bridge:  bridge.Defaults(),
	}
}

// Validate reports what no section can say alone, and settles whether there is anything to do. The Python package's file has an hpfeeds
// section also where its type is amqp, and that did not publish there then.
func (c *Config) Validate(bad func(name, problem string)) {
	c.On = c.HPFeeds.IsSet() && (c.Type == "hpfeeds" || !c.FromFile("HPFEEDS_HOST"))
	if c.Type == "hpfeeds" && !c.HPFeeds.IsSet() {
		bad("HPFEEDS_HOST", "must be set, because type is hpfeeds")
	}
	if slices.Contains(c.HPFeeds.Channels, c.Bridge.FenceChannel) {
		bad("BRIDGE_FENCE_CHANNEL", "must not be one of HPFEEDS_CHANNELS, whose subscribers want mail and no tokens")
	}
	if c.AMQP.Queue == c.Bridge.Queue {
		bad("BRIDGE_QUEUE", "must not be AMQP_QUEUE, which is for everybody's backlog")
	}
}
