package bridge

import (
	"fmt"

	"spamtraps.internal/libs/amqp"
	"spamtraps.internal/libs/hpfeeds"
)

// Config says how mail gets from the queue to the hpfeeds broker. Start from Defaults; the tags are what the configuration loader and the documentation
// are made from.
type Config struct {
	Queue        string `env:"QUEUE" desc:"Queue of this bridge's own, declared when it is absent and bound to the exchange; bridges that share it share the work."`
	DeadLetter   string `env:"DEADLETTER" desc:"Exchange and queue, both of this name, for mails that cannot be published; declared when they are absent."`
	Prefetch     int    `env:"PREFETCH" desc:"How many mails may be on their way at once; as many can arrive twice after a crash."`
	Memory       int64  `env:"MEMORY" unit:"bytes" desc:"How many bytes of mail may be on their way at once; a larger mail goes alone."`
	Confirm      string `env:"CONFIRM" oneof:"auto drained fence" desc:"When a mail counts as published: fence, when a token published after it has come back over a second connection, so that the broker has processed it; drained, when the broker's machine has all of its bytes; auto is fence where BRIDGE_FENCE_CHANNEL is set and may be used."`
	FenceChannel string `env:"FENCE_CHANNEL" empty:"no fence" desc:"Channel of the fence's own, which HPFEEDS_IDENT may publish to and subscribe to, and nobody else needs."`
	Oversize     string `env:"OVERSIZE" oneof:"deadletter drop" desc:"What becomes of a mail that is too large for the hpfeeds broker (HPFEEDS_MAX_PAYLOAD)."`
	Payload      string `env:"PAYLOAD" oneof:"raw json" desc:"What is published: raw, the mail as it was received; json, the mail with its envelope (docs/hpfeeds.md)."`
}

// The values of settings that have few.
const (
	confirmAuto, confirmDrained, confirmFence = "auto", "drained", "fence"
	oversizeDeadLetter, oversizeDrop          = "deadletter", "drop"
	payloadRaw, payloadJSON                   = "raw", "json"
)

// Defaults returns what suits our own broker image.
func Defaults() Config {
	return Config{
		Queue:      "spam.hpfeeds",
		DeadLetter: "spam.dead",
		Prefetch:   512,
		Memory:     64 << 20,
		Confirm:    confirmAuto,
		Oversize:   oversizeDeadLetter,
		Payload:    payloadRaw,
	}
}

// Validate reports every setting that is out of range or contradicts another, once each.
func (c *Config) Validate(bad func(name, problem string)) {
	for _, name := range []struct{ variable, value string }{{"QUEUE", c.Queue}, {"DEADLETTER", c.DeadLetter}} {
		if name.value == "" || len(name.value) > 255 {
			bad(name.variable, fmt.Sprintf("must have between 1 and 255 bytes, not %d", len(name.value)))
		}
	}
	if c.Queue == c.DeadLetter {
		bad("DEADLETTER", "must not be BRIDGE_QUEUE, or mails that cannot be published would come round for ever")
	}
	if c.Prefetch < 1 || c.Prefetch > maxPrefetch {
		bad("PREFETCH", fmt.Sprintf("must be between 1 and %d, not %d", maxPrefetch, c.Prefetch))
	}
	if c.Memory < 1<<20 {
		bad("MEMORY", fmt.Sprintf("must be at least 1MiB, not %d", c.Memory))
	}
	if c.Confirm == confirmFence && c.FenceChannel == "" {
		bad("FENCE_CHANNEL", "must be set when BRIDGE_CONFIRM is fence")
	}
	if c.Confirm == confirmDrained && c.FenceChannel != "" {
		bad("FENCE_CHANNEL", "contradicts BRIDGE_CONFIRM, which is drained")
	}
	if c.FenceChannel != "" {
		if problem := hpfeeds.CheckName(c.FenceChannel); problem != "" {
			bad("FENCE_CHANNEL", problem)
		}
	}
}

// maxPrefetch is the protocol's own: a number of 16 bits.
const maxPrefetch = 1<<16 - 1

// Source is what the bridge consumes.
func (c *Config) Source() amqp.Source {
	return amqp.Source{Queue: c.Queue, DeadLetter: c.DeadLetter, Prefetch: c.Prefetch, Bytes: c.Memory}
}

// Morgue returns the settings of a publisher into the dead-letter queue, at the broker of cfg.
func (c *Config) Morgue(cfg amqp.Config) amqp.Config {
	cfg.Exchange, cfg.Queue = c.DeadLetter, c.DeadLetter
	return cfg
}
