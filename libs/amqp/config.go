package amqp

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/rabbitmq/amqp091-go"

	"spamtraps.internal/libs/secret"
)

// Config says which broker to publish to, as whom and where to. Start from Defaults; the tags are what the configuration
// loader and the documentation are made from. Passwords and certificates are read when a connection is made, each time anew.
type Config struct {
	URL secret.Secret `env:"URL" over:"HOST PORT VHOST IDENT SECRET TLS" desc:"Broker as amqp://user:password@host:port/vhost (amqps:// for TLS); a comma separated list is tried in order. Replaces host, port, vhost, ident, secret and tls."`

	Host   []string      `env:"HOST" desc:"Host names or addresses of the broker, each with its own :port if it needs one; tried in order."`
	Port   int           `env:"PORT" desc:"Port of the broker; 0 is 5671 with TLS and 5672 without."`
	VHost  string        `env:"VHOST" desc:"Virtual host at the broker."`
	Ident  string        `env:"IDENT" desc:"User name at the broker."`
	Secret secret.Secret `env:"SECRET" empty:"the client certificate tells the broker who we are (SASL EXTERNAL)" desc:"Password at the broker."`

	TLS       bool   `env:"TLS" desc:"Speak TLS (1.2 or later) to the broker."`
	CheckCert bool   `env:"CHECK_CERT" desc:"Verify the broker's certificate and its name."`
	CAFile    string `env:"CA_FILE" empty:"the system's authorities" desc:"PEM file of the authorities that the broker's certificate is verified with."`
	CertFile  string `env:"CERT_FILE" empty:"no client certificate" desc:"PEM file of our own certificate, for a broker that asks for one."`
	KeyFile   string `env:"KEY_FILE" empty:"no client certificate" desc:"PEM file of the key to our own certificate."`

	Exchange        string `env:"EXCHANGE" desc:"Exchange that every mail is published to; a topic exchange is declared when it is absent."`
	RoutingKey      string `env:"ROUTING_KEY" desc:"Routing key of every mail."`
	ExchangeDurable bool   `env:"EXCHANGE_DURABLE" desc:"Whether the exchange is declared durable when it is absent; false for backends of the old package."`
	Queue           string `env:"QUEUE" empty:"declares none" desc:"Backlog queue that is declared when it is absent and bound to the exchange, so that mail has a home before any backend exists."`
	QueueType       string `env:"QUEUE_TYPE" desc:"Type that the backlog queue is declared with: quorum or classic."`

	ConfirmTimeout  time.Duration `env:"CONFIRM_TIMEOUT" desc:"How long to wait for the broker to confirm a mail."`
	MaxMessageBytes int64         `env:"MAX_MESSAGE_BYTES" unit:"bytes" desc:"Largest mail that the broker takes (RabbitMQ 4: 16MiB unless configured); larger ones are refused before they are sent."`
	InFlight        int           `env:"IN_FLIGHT" desc:"How many mails may wait for the broker's confirm at once; as many can arrive twice after a crash."`
	InFlightBytes   int64         `env:"IN_FLIGHT_BYTES" unit:"bytes" desc:"How many bytes of mail may wait for the broker's confirm at once; a larger mail goes alone."`
	Heartbeat       time.Duration `env:"HEARTBEAT" desc:"Heartbeat interval in whole seconds; a broker that is silent for one and a half is given up."`
}

// Defaults returns the configuration of the package that this one replaces, where that had a setting, and otherwise what
// suits RabbitMQ 4 as it comes.
func Defaults() Config {
	return Config{
		Host:            []string{"localhost"},
		VHost:           "/",
		Ident:           "writer",
		Secret:          secret.New("secret"),
		TLS:             true,
		CheckCert:       true,
		Exchange:        "spam",
		RoutingKey:      "spam.mails",
		ExchangeDurable: true,
		Queue:           "spam.mails",
		QueueType:       "quorum",
		ConfirmTimeout:  30 * time.Second,
		MaxMessageBytes: 16 << 20,
		InFlight:        256,
		InFlightBytes:   64 << 20,
		Heartbeat:       10 * time.Second,
	}
}

// ToQueue returns the same configuration, but for publishing into one queue alone, whatever the exchange is bound to: through the default
// exchange (AMQP 0-9-1 §3.1.3.1). The queue must exist; nothing is declared. The user needs the right to write to the default exchange, which
// RabbitMQ calls amq.default.
func (c Config) ToQueue(name string) Config {
	c.Exchange, c.RoutingKey, c.Queue = "", name, ""
	return c
}

// maxShortString is the longest string that AMQP can carry as a name or a property (AMQP 0-9-1 §4.2.5.3), in bytes.
const maxShortString = 255

// Validate reports every setting that is out of range or contradicts another, once each. It reads no file: one that cannot
// be read when a connection is made is a temporary fault, because whoever provides it may be about to.
func (c *Config) Validate(bad func(name, problem string)) {
	if c.URL.IsSet() {
		c.validateURL(bad)
	} else {
		c.validateParts(bad)
	}
	c.validateTLS(bad)
	for _, name := range []struct {
		variable, value string
		mayBeEmpty      bool
	}{
		{"EXCHANGE", c.Exchange, false},
		{"ROUTING_KEY", c.RoutingKey, false},
		{"QUEUE", c.Queue, true},
		{"VHOST", c.VHost, false},
		{"IDENT", c.Ident, false},
	} {
		if name.value == "" && !name.mayBeEmpty {
			bad(name.variable, "must not be empty")
		}
		if len(name.value) > maxShortString {
			bad(name.variable, fmt.Sprintf("must have at most %d bytes, not %d", maxShortString, len(name.value)))
		}
	}
	if c.QueueType != "quorum" && c.QueueType != "classic" {
		bad("QUEUE_TYPE", fmt.Sprintf("must be quorum or classic, not %q", c.QueueType))
	}
	if c.ConfirmTimeout < time.Second {
		bad("CONFIRM_TIMEOUT", fmt.Sprintf("must be at least 1s, not %s", c.ConfirmTimeout))
	}
	if c.MaxMessageBytes < 1 {
		bad("MAX_MESSAGE_BYTES", fmt.Sprintf("must be at least 1, not %d", c.MaxMessageBytes))
	}
	if c.InFlight < 1 || c.InFlight > maxInFlight {
		bad("IN_FLIGHT", fmt.Sprintf("must be between 1 and %d, not %d", maxInFlight, c.InFlight))
	}
	if c.InFlightBytes < 1 {
		bad("IN_FLIGHT_BYTES", fmt.Sprintf("must be at least 1, not %d", c.InFlightBytes))
	}
	if c.Heartbeat < time.Second || c.Heartbeat > time.Hour || c.Heartbeat%time.Second != 0 {
		bad("HEARTBEAT", fmt.Sprintf("must be whole seconds between 1s and 1h, not %s", c.Heartbeat))
	}
}

// maxInFlight keeps what each lane sets aside for returns within a few megabytes.
const maxInFlight = 1 << 14

func (c *Config) validateURL(bad func(name, problem string)) {
	if c.URL.File() != "" {
		return // read at each connect, and judged there
	}
	list, _ := c.URL.Reveal() // a literal cannot fail
	brokers, err := parseURLs(list)
	if err != nil {
		bad("URL", err.Error())
		return
	}
	for _, b := range brokers {
		if !b.tls && (c.CAFile != "" || c.CertFile != "") {
			bad("URL", "must begin with amqps:// because AMQP_CA_FILE or AMQP_CERT_FILE is set")
			return
		}
	}
}

func (c *Config) validateParts(bad func(name, problem string)) {
	if len(c.Host) == 0 {
		bad("HOST", "must not be empty")
	}
	if c.Port < 0 || c.Port > 65535 {
		bad("PORT", fmt.Sprintf("must be between 1 and 65535, or 0 for the usual one, not %d", c.Port))
	}
	for i, host := range c.Host {
		if _, _, err := splitHost(host, 1); err != nil {
			bad("HOST", fmt.Sprintf("%s; entry %d is none", err, i+1))
		}
	}
	if !c.Secret.IsSet() && c.CertFile == "" {
		bad("SECRET", "must not be empty unless AMQP_CERT_FILE is set: the broker has to learn who we are from one of them")
	}
	if !c.TLS && c.CAFile != "" {
		bad("CA_FILE", "contradicts AMQP_TLS, which is off")
	}
	if !c.TLS && c.CertFile != "" {
		bad("CERT_FILE", "contradicts AMQP_TLS, which is off")
	}
}

func (c *Config) validateTLS(bad func(name, problem string)) {
	if (c.CertFile == "") != (c.KeyFile == "") {
		missing, given := "CERT_FILE", "AMQP_KEY_FILE"
		if c.KeyFile == "" {
			missing, given = "KEY_FILE", "AMQP_CERT_FILE"
		}
		bad(missing, "must be set together with "+given)
	}
	if c.CAFile != "" && !c.CheckCert {
		bad("CA_FILE", "contradicts AMQP_CHECK_CERT, which is off")
	}
}

// broker is one place to connect to.
type broker struct {
	host, port string
	vhost      string
	user       string
	password   string // empty: SASL EXTERNAL
	tls        bool
}

// address returns host:port.
func (b broker) address() string { return net.JoinHostPort(b.host, b.port) }

// brokers lists where to connect, in order. It reads the secrets, so it may fail for a while.
func (c *Config) brokers() ([]broker, error) {
	if c.URL.IsSet() {
		list, err := c.URL.Reveal()
		if err != nil {
			return nil, err
		}
		found, err := parseURLs(list)
		if err != nil {
			return nil, fmt.Errorf("AMQP_URL %w", err)
		}
		return found, nil
	}
	password, err := c.Secret.Reveal()
	if err != nil {
		return nil, err
	}
	usual := c.Port
	if usual == 0 {
		usual = 5672
		if c.TLS {
			usual = 5671
		}
	}
	found := make([]broker, 0, len(c.Host))
	for _, entry := range c.Host {
		host, port, err := splitHost(entry, usual)
		if err != nil {
			return nil, fmt.Errorf("AMQP_HOST %w", err)
		}
		found = append(found, broker{host: host, port: port, vhost: c.VHost, user: c.Ident, password: password, tls: c.TLS})
	}
	return found, nil
}

// parseURLs reads a comma separated list of AMQP URLs. Its errors read on after "AMQP_URL" and never quote the list, which
// holds a password; so they tell an entry by its number.
func parseURLs(list string) ([]broker, error) {
	var found []broker
	for i, entry := range strings.Split(list, ",") {
		entry = strings.TrimSpace(entry)
		uri, err := amqp091.ParseURI(entry)
		if err != nil {
			return nil, fmt.Errorf("must be amqp:// or amqps:// URLs with reserved characters percent-encoded; entry %d is none", i+1)
		}
		if strings.ContainsAny(entry, "?#") {
			return nil, fmt.Errorf("must not carry options after a question mark: they have settings of their own (entry %d)", i+1)
		}
		found = append(found, broker{
			host: uri.Host, port: strconv.Itoa(uri.Port), vhost: uri.Vhost,
			user: uri.Username, password: uri.Password, tls: uri.Scheme == "amqps",
		})
	}
	return found, nil
}

// errHost reads on after "AMQP_HOST" and does not quote the entry, which may be a URL with a password put there by mistake.
var errHost = errors.New("must be host names or addresses, each with at most a port")

// splitHost takes the port off a host that carries one: host, host:port, an address, [v6 address]:port.
func splitHost(entry string, usual int) (host, port string, err error) {
	if entry == "" || strings.ContainsAny(entry, " /@") {
		return "", "", errHost
	}
	if !strings.Contains(entry, ":") || net.ParseIP(entry) != nil {
		return entry, strconv.Itoa(usual), nil
	}
	host, port, err = net.SplitHostPort(entry)
	if err != nil || host == "" {
		return "", "", errHost
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return "", "", errHost
	}
	return host, port, nil
}
