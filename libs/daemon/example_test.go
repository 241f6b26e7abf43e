package daemon_test

import (
	"context"
	"fmt"
	"os"
	"time"

	"spamtraps.internal/libs/daemon"
	"spamtraps.internal/libs/secret"
)

// clockConfig is a configuration: what every service has, and one section of its own.
type clockConfig struct {
	daemon.Common
	Clock clock `section:"CLOCK" desc:"The clock that this service shows"`
}

// clock is set by CLOCK_INTERVAL, CLOCK_SECRET or CLOCK_SECRET_FILE, and by the map clock of the feed file.
type clock struct {
	Interval time.Duration `env:"INTERVAL" flag:"interval" short:"i" desc:"Time from tick to tick."`
	Secret   secret.Secret `env:"SECRET" desc:"What lets us see the clock."`
}

// Validate reports what a type cannot say.
func (c *clock) Validate(bad func(name, problem string)) {
	if c.Interval < time.Second {
		bad("INTERVAL", fmt.Sprintf("must be at least 1s, not %s", c.Interval))
	}
}

// runClock builds the parts and starts them; it doesn't wait for them.
func runClock(_ context.Context, d *daemon.Daemon, cfg clockConfig) error {
	d.Watch("clock", func() daemon.Health { return daemon.Health{OK: true, Text: "clock: ticks"} })
	d.Go("clock", func(ctx context.Context) error {
		ticks := time.NewTicker(cfg.Clock.Interval)
		defer ticks.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-ticks.C:
				d.Log.Info().Msg("tick")
			}
		}
	})
	return nil
}

// A service is its configuration and a function that starts its parts; main does nothing but
//
//	os.Exit(daemon.Main(service, daemon.OSProcess()))
func ExampleMain() {
	service := daemon.Service[clockConfig]{
		Name:  "clock",
		About: "Says what time it is.",
		Defaults: func() clockConfig {
			return clockConfig{Common: daemon.Common{AdminAddr: "127.0.0.1:9609"}, Clock: clock{Interval: time.Minute}}
		},
		Run: runClock,
	}
	process := daemon.Process{Stdout: os.Stdout, Stderr: os.Stdout}

	process.Args = []string{"--interval=5s", "config"}
	process.Env = []string{"CLOCK_SECRET=hunter2", "SENSOR=trap-1"}
	fmt.Println("exit code", daemon.Main(service, process))

	process.Args = []string{"--interval=5ms"}
	process.Env = []string{"CLOCK_SECRT=hunter2", "LOG_FORMAT=xml"}
	fmt.Println("exit code", daemon.Main(service, process))

	// Output:
	// # FEED_CONFIG= # default
	// type: "amqp" # default
	// sensor: "trap-1" # SENSOR
	// log_level: "info" # default
	// # --verbose=false # default
	// log_format: "" # default: console on a terminal, else json
	// admin_addr: "127.0.0.1:9609" # default
	// shutdown_timeout: 15s # default
	//
	// clock:
	//   interval: 5s # --interval
	//   secret: "***" # CLOCK_SECRET
	// exit code 0
	// clock: LOG_FORMAT must be json or console, not "xml"
	// clock: CLOCK_SECRT is no setting: did you mean CLOCK_SECRET?
	// clock: --interval must be at least 1s, not 5ms
	// exit code 2
}
