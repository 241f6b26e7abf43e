package amqp

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"spamtraps.internal/libs/secret"
)

func TestDefaultsAreValid(t *testing.T) {
	cfg := Defaults()
	cfg.Validate(func(name, problem string) { t.Errorf("AMQP_%s %s", name, problem) })
}

func TestValidate(t *testing.T) {
	const password = "hunter2"
	for _, row := range []struct {
		change func(*Config)
		want   []string
	}{
		{func(c *Config) { c.Host = nil }, []string{"HOST must not be empty"}},
		{func(c *Config) { c.Host = []string{"q1", "amqp://u:" + password + "@q2"} }, []string{
			"HOST must be host names or addresses, each with at most a port; entry 2 is none",
		}},
		{func(c *Config) { c.Port = 70000 }, []string{"PORT must be between 1 and 65535, or 0 for the usual one, not 70000"}},
		{func(c *Config) { c.VHost, c.Ident, c.Exchange, c.RoutingKey = "", "", "", "" }, []string{
			"EXCHANGE must not be empty", "ROUTING_KEY must not be empty", "VHOST must not be empty", "IDENT must not be empty",
		}},
		{func(c *Config) { c.Queue = strings.Repeat("q", 256) }, []string{"QUEUE must have at most 255 bytes, not 256"}},
		{func(c *Config) { c.QueueType = "stream" }, []string{`QUEUE_TYPE must be quorum or classic, not "stream"`}},
		{func(c *Config) { c.Secret = secret.Secret{} }, []string{
			"SECRET must not be empty unless AMQP_CERT_FILE is set: the broker has to learn who we are from one of them",
		}},
		{func(c *Config) { c.TLS, c.CAFile = false, "ca" }, []string{"CA_FILE contradicts AMQP_TLS, which is off"}},
		{func(c *Config) { c.TLS, c.CertFile, c.KeyFile = false, "cert", "key" }, []string{"CERT_FILE contradicts AMQP_TLS, which is off"}},
		{func(c *Config) { c.CheckCert, c.CAFile = false, "ca" }, []string{"CA_FILE contradicts AMQP_CHECK_CERT, which is off"}},
		{func(c *Config) { c.CertFile = "cert" }, []string{"KEY_FILE must be set together with AMQP_CERT_FILE"}},
		{func(c *Config) { c.KeyFile = "key" }, []string{"CERT_FILE must be set together with AMQP_KEY_FILE"}},
		{func(c *Config) { c.ConfirmTimeout = time.Millisecond }, []string{"CONFIRM_TIMEOUT must be at least 1s, not 1ms"}},
		{func(c *Config) { c.MaxMessageBytes, c.InFlight, c.InFlightBytes = 0, 0, 0 }, []string{
			"MAX_MESSAGE_BYTES must be at least 1, not 0", "IN_FLIGHT must be between 1 and 16384, not 0",
			"IN_FLIGHT_BYTES must be at least 1, not 0",
		}},
		{func(c *Config) { c.Heartbeat = 1500 * time.Millisecond }, []string{"HEARTBEAT must be whole seconds between 1s and 1h, not 1.5s"}},
		{func(c *Config) { c.URL = secret.New("amqp://u:" + password + "@h, http://h") }, []string{
			"URL must be amqp:// or amqps:// URLs with reserved characters percent-encoded; entry 2 is none",
		}},
		{func(c *Config) { c.URL = secret.New("amqp://u:" + password + "%@h") }, []string{
			"URL must be amqp:// or amqps:// URLs with reserved characters percent-encoded; entry 1 is none",
		}},
		{func(c *Config) { c.URL = secret.New("amqp://u:" + password + "@h/?heartbeat=5") }, []string{
			"URL must not carry options after a question mark: they have settings of their own (entry 1)",
		}},
		{func(c *Config) { c.URL, c.CAFile = secret.New("amqp://u:"+password+"@h"), "ca" }, []string{
			"URL must begin with amqps:// because AMQP_CA_FILE or AMQP_CERT_FILE is set",
		}},
	} {
		cfg := Defaults()
		row.change(&cfg)
		var got []string
		cfg.Validate(func(name, problem string) { got = append(got, name+" "+problem) })
		if !reflect.DeepEqual(got, row.want) {
			t.Errorf("got  %q\nwant %q", got, row.want)
		}
		if strings.Contains(fmt.Sprint(got), password) {
			t.Errorf("the password is in %q", got)
		}
	}
}

func TestBrokers(t *testing.T) {
	for _, row := range []struct {
		change func(*Config)
		want   []broker
	}{
		{func(*Config) {}, []broker{{"localhost", "5671", "/", "writer", "secret", true}}},
		{func(c *Config) { c.TLS = false }, []broker{{"localhost", "5672", "/", "writer", "secret", false}}},
		{func(c *Config) { c.Host, c.Port = []string{"q1", "q2:7", "::1", "[::1]:8"}, 9 }, []broker{
			{"q1", "9", "/", "writer", "secret", true},
			{"q2", "7", "/", "writer", "secret", true},
			{"::1", "9", "/", "writer", "secret", true},
			{"::1", "8", "/", "writer", "secret", true},
		}},
		{func(c *Config) { c.URL = secret.New("amqps://u:p%2Cw@q1/v%2Fh, amqp://u2:p2@q2:7") }, []broker{
			{"q1", "5671", "v/h", "u", "p,w", true},
			{"q2", "7", "/", "u2", "p2", false},
		}},
	} {
		cfg := Defaults()
		row.change(&cfg)
		got, err := cfg.brokers()
		if err != nil || !reflect.DeepEqual(got, row.want) {
			t.Errorf("got %v, %v\nwant %v", got, err, row.want)
		}
	}
}
