package daemon_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"go.uber.org/goleak"

	"spamtraps.internal/libs/daemon"
	"spamtraps.internal/libs/secret"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// trapConfig has a setting of each kind and of each tag.
type trapConfig struct {
	daemon.Common
	MaildirKeep string    `env:"MAILDIR_KEEP" desc:"Which mails the maildir keeps." oneof:"all undelivered"`
	Broker      brokerSet `section:"AMQP" desc:"RabbitMQ"`
	Listen      listenSet `section:"LMTP" desc:"Where mail comes in"`
}

func (c *trapConfig) Validate(bad func(name, problem string)) {
	if c.Sensor == "alone" {
		bad("MAILDIR", "must not be alone")
	}
	if c.Broker.VHost == c.Broker.Ident {
		bad("AMQP_VHOST", "must not be AMQP_IDENT")
	}
}

type brokerSet struct {
	URL        secret.Secret `env:"URL" over:"HOST PORT SECRET" desc:"The broker in one word."`
	Host       []string      `env:"HOST" desc:"Brokers, tried in turn."`
	Port       int           `env:"PORT" desc:"Port of the broker."`
	VHost      string        `env:"VHOST" desc:"Virtual host."`
	Ident      string        `env:"IDENT" desc:"User."`
	Secret     secret.Secret `env:"SECRET" desc:"Password."`
	Exchange   string        `env:"EXCHANGE" desc:"Exchange."`
	RoutingKey string        `env:"ROUTING_KEY" desc:"Routing key."`
	TLS        bool          `env:"TLS" desc:"Whether to speak TLS."`
	CheckCert  bool          `env:"CHECK_CERT" desc:"Whether to check the certificate."`
	Queue      string        `env:"QUEUE" empty:"declares none" desc:"The backlog queue."`
	Timeout    time.Duration `env:"CONFIRM_TIMEOUT" desc:"How long to wait for a confirm."`
	Budget     int64         `env:"IN_FLIGHT_BYTES" unit:"bytes" desc:"Bytes in flight."`
}

func (b *brokerSet) Validate(bad func(name, problem string)) {
	if b.Port < 1 || b.Port > 65535 {
		bad("PORT", "must be between 1 and 65535")
	}
	b.RoutingKey = strings.Replace(b.RoutingKey, "upper", "UPPER", 1)
}

type listenSet struct {
	Listen  string   `env:"LISTEN" desc:"Where to listen."`
	Port    uint16   `env:"-" flag:"port" short:"p" empty:"that of LMTP_LISTEN" desc:"Port to listen on."`
	Domains []string `env:"DOMAINS" empty:"any" desc:"Domains to take mail for."`
	Ratio   float64  `env:"RATIO" desc:"A ratio."`
	Codes   []int    `env:"CODES" empty:"none" desc:"Numbers."`

	Modes []string `env:"MODES" oneof:"fast slow" empty:"none" desc:"Modes."`

	Peer netip.Addr `env:"PEER" empty:"anyone" desc:"Who may come."`
}

func (l *listenSet) Validate(bad func(name, problem string)) {
	if l.Port == 1 {
		bad("port", "must not be 1")
	}
}

func defaults() trapConfig {
	return trapConfig{
		Common:      daemon.Common{AdminAddr: "127.0.0.1:0"},
		MaildirKeep: "all",
		Broker: brokerSet{
			Host: []string{"localhost"}, Port: 5671, VHost: "/", Ident: "writer", Secret: secret.New("default-password"),
			Exchange: "spam", RoutingKey: "spam.mails", TLS: true, CheckCert: true, Queue: "spam.mails", Timeout: 30 * time.Second, Budget: 64 << 20,
		},
		Listen: listenSet{Listen: "127.0.0.1:24", Ratio: 0.5},
	}
}

// service returns one whose parts the test gives.
func service(run func(context.Context, *daemon.Daemon, trapConfig) error) daemon.Service[trapConfig] {
	return daemon.Service[trapConfig]{
		Name: "trap", About: "A service for tests.", Defaults: defaults, Prefixes: []string{"MAILDIR"}, Run: run,
		Commands: []daemon.Command[trapConfig]{showCommand()},
	}
}

func showCommand() daemon.Command[trapConfig] {
	var upper bool
	return daemon.Command[trapConfig]{
		Name: "show", About: "show the configuration to a test", Usage: "[--upper] [ARGUMENT…]",
		Flags: func(flags *pflag.FlagSet) { flags.BoolVar(&upper, "upper", false, "in capitals") },
		Run: func(_ context.Context, p daemon.Process, cfg trapConfig, args []string) int {
			if upper {
				for i, arg := range args {
					args[i] = strings.ToUpper(arg)
				}
			}
			if err := json.NewEncoder(p.Stdout).Encode(map[string]any{"args": args, "host": cfg.Broker.Host, "level": cfg.LogLevel}); err != nil {
				return daemon.ExitFailed
			}
			return daemon.ExitOK
		},
	}
}

// console is a stream that can be read while it is written.
type console struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text.Write(p)
}

func (c *console) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text.String()
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(body)
}
