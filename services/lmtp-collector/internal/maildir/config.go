package maildir

import (
	"fmt"
	"time"
)

// Which mails a maildir keeps: the values of Config.Keep.
const (
	KeepAll         = "all"
	KeepUndelivered = "undelivered"
)

// Config says where the maildir is and what it keeps. libs/daemon explains the tags; start from Defaults.
type Config struct {
	Path     string        `env:"" flag:"maildir" short:"m" empty:"none" desc:"Folder of the maildir that takes mail while RabbitMQ cannot, and is made when it does not exist."`
	Keep     string        `env:"KEEP" oneof:"all undelivered" desc:"Which mails stay in the maildir: all (a copy of each, as a backup) or undelivered (those that RabbitMQ does not have yet)."`
	MinFree  int64         `env:"MIN_FREE" unit:"bytes" desc:"Room to leave free on the maildir's disk: when there is less, copies of delivered mail go, oldest first, and then new mail is refused for the time being."`
	MaxBytes int64         `env:"MAX_BYTES" unit:"bytes" desc:"Most bytes of copies of delivered mail; older ones go. 0 is any. Undelivered mail does not count and is never deleted."`
	MaxAge   time.Duration `env:"MAX_AGE" desc:"How long copies of delivered mail stay; 0s is for ever. Undelivered mail is never deleted."`
}

// Defaults returns what holds when nothing is set: no maildir; one that keeps all, as -m of the old package did; and as much room as four
// of the largest mails that RabbitMQ 4 takes by default.
func Defaults() Config {
	return Config{Keep: KeepAll, MinFree: 64 << 20}
}

// Validate reports settings that are out of range.
func (c *Config) Validate(bad func(name, problem string)) {
	for name, value := range map[string]int64{"MIN_FREE": c.MinFree, "MAX_BYTES": c.MaxBytes, "MAX_AGE": int64(c.MaxAge)} {
		if value < 0 {
			bad(name, fmt.Sprintf("must not be negative, not %d", value))
		}
	}
}
