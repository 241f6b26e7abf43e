package daemon

import (
	"net"
	"os"
	"strconv"
	"time"
)

// Common are the settings that every service has. It is embedded first in a service's configuration struct; Service.Defaults
// must give AdminAddr, because each service has its own port; zero values of LogLevel and ShutdownTimeout are filled in.
type Common struct {
	FeedConfig string `env:"FEED_CONFIG" yaml:"-" flag:"feed-config" short:"f" empty:"none is read" desc:"YAML file with these settings; that of the Python package is read as it is."`
	Type       string `env:"-" yaml:"type" oneof:"amqp hpfeeds" empty:"amqp" desc:"What the Python package's feed file was for; only hpfeeds-bridge minds."`

	Sensor          string        `env:"SENSOR" empty:"the host name" desc:"Name of this sensor, sent with each mail."`
	LogLevel        string        `env:"LOG_LEVEL" oneof:"debug info warn error" desc:"The least important events that are logged."`
	Verbose         bool          `env:"-" yaml:"-" flag:"verbose" short:"v" desc:"Log as with LOG_LEVEL=debug."`
	LogFormat       string        `env:"LOG_FORMAT" oneof:"json console" empty:"console on a terminal, else json" desc:"How events are written to stderr."`
	AdminAddr       string        `env:"ADMIN_ADDR" desc:"Address of the status page, /livez, /readyz and /metrics; a lone :PORT listens on all interfaces."`
	ShutdownTimeout time.Duration `env:"SHUTDOWN_TIMEOUT" desc:"How long the service may take to finish what is in flight after SIGTERM."`

	fromFile map[string]bool // by variable
}

// FromFile tells whether a setting, by the name of its variable, has its value from the YAML file. It is for settings that mean something else there,
// because the Python package's file has them even where they are not in use.
func (c *Common) FromFile(variable string) bool { return c.fromFile[variable] }

// defaultShutdownTimeout leaves half of Kubernetes' grace period of 30 s.
const defaultShutdownTimeout = 15 * time.Second

// common is how the loader gets at the Common that is embedded in a configuration struct of any type.
func (c *Common) common() *Common { return c }

func (c *Common) fillDefaults() {
	if c.LogLevel == "" {
		c.LogLevel = "info"
	}
	if c.ShutdownTimeout == 0 {
		c.ShutdownTimeout = defaultShutdownTimeout
	}
}

// validate isn't exported, because a promoted Validate would hide that the service's own struct has none.
func (c *Common) validate(bad func(name, problem string)) {
	if c.ShutdownTimeout <= 0 {
		bad("SHUTDOWN_TIMEOUT", "must be more than 0s")
	}
	if problem := badAddress(c.AdminAddr); problem != "" {
		bad("ADMIN_ADDR", problem)
	}
	if c.Verbose {
		c.LogLevel = "debug"
	}
	if c.Type == "" {
		c.Type = "amqp"
	}
	if c.Sensor != "" {
		return
	}
	host, err := os.Hostname()
	if err != nil {
		bad("SENSOR", "must be set, because the host's name is not known: "+err.Error())
	}
	c.Sensor = host
}

// badAddress tells what is wrong with an address to listen on, "" when nothing is.
func badAddress(addr string) string {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "must be HOST:PORT or :PORT, not " + quote(addr)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "must end in a port from 0 to 65535, not " + quote(port)
	}
	return ""
}
