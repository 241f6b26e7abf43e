package rig

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	sharedName = "spamtraps-rig-rabbitmq"
	// bootLimit bounds a broker's start: 10 s on an idle machine of two cores, far more beside other tests.
	bootLimit = 3 * time.Minute

	portAMQP       = 5672
	portAMQPS      = 5671
	portManagement = 15672
)

// Broker is a RabbitMQ 4 in a container of the project's own image, and a vhost in it that belongs to one test.
type Broker struct {
	*Container
	// Host and Port are where AMQP is published on loopback; they stay the same over Stop and Start.
	Host string
	Port int
	// VHost, User and Password open the test's vhost; the user is an administrator.
	VHost, User, Password string

	management string
}

// SharedBroker returns the broker that all test processes share, started when it does not run or runs an older image, with
// a new vhost that goes when the test ends. Tests must not stop, pause or starve it: OwnBroker is for that. It stays up
// after the tests for the next run; `make test` removes it at its end.
func SharedBroker(t testing.TB) *Broker {
	t.Helper()
	image := Image(t, "rabbitmq")
	unlock := lock(t)
	defer unlock()
	if !brokerShared.runs(t, image) && !brokerShared.inUse(t) {
		_, _ = docker("rm", "-f", "-v", sharedName)
		if err := start(sharedName, "shared", image, brokerOptions()); err != nil {
			t.Fatal(err)
		}
	}
	brokerShared.use(t)
	b := newBroker(t, sharedName)
	b.WaitReady()
	b.login()
	random := make([]byte, 4)
	_, _ = rand.Read(random)
	b.VHost = fmt.Sprintf("test-%d-%x", os.Getpid(), random)
	b.MakeVHost(b.VHost)
	t.Cleanup(func() { b.API(http.MethodDelete, "/api/vhosts/"+url.PathEscape(b.VHost), nil, nil) })
	return b
}

// Option changes how OwnBroker and OwnDovecot start their container.
type Option func(testing.TB, *Options)

// WithEnv sets a variable (NAME=value) of the server's image.
func WithEnv(assignment string) Option {
	return func(_ testing.TB, o *Options) { o.Env = append(o.Env, assignment) }
}

// WithTLS gives the broker a certificate, so that it also listens for TLS (TLSPort), and a CA whose client certificates it takes.
func WithTLS(caFile, certFile, keyFile string) Option {
	return func(t testing.TB, o *Options) {
		t.Helper()
		o.Ports[portAMQPS] = 0
		dir := t.TempDir()
		for name, from := range map[string]string{"ca.pem": caFile, "cert.pem": certFile, "key.pem": keyFile} {
			raw, err := os.ReadFile(from)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, name), raw, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		o.Folders = map[string]string{"/tls": dir}
	}
}

// WithNetwork starts the broker in a network made by NewNetwork, where it is called rabbitmq.
func WithNetwork(name string) Option {
	return func(_ testing.TB, o *Options) { o.Network, o.Alias = name, "rabbitmq" }
}

// OwnBroker starts a broker for this test alone, with the vhost /, and returns when it takes connections (10 s and more).
func OwnBroker(t testing.TB, options ...Option) *Broker {
	t.Helper()
	o := brokerOptions()
	for _, option := range options {
		option(t, &o)
	}
	c := Run(t, Image(t, "rabbitmq"), o)
	b := newBroker(t, c.Name)
	b.net = c.net
	b.VHost = "/"
	b.WaitReady()
	b.login()
	b.Settle()
	t.Cleanup(b.tell)
	return b
}

// quorumLine is what a broker logs of its quorum queues, of files to be repaired, and of whatever went wrong.
var quorumLine = regexp.MustCompile(`queue '|dets:|ra system|ra: |Recovering|\[(error|critical)\]`)

// tell shows what a broker knows of its queues and channels when its test failed.
func (b *Broker) tell() {
	if !b.t.Failed() {
		return
	}
	for _, question := range [][]string{
		{"rabbitmqctl", "-q", "list_queues", "name", "type", "state", "leader", "messages", "messages_unacknowledged", "consumers"},
		{"rabbitmqctl", "-q", "list_bindings", "source_name", "destination_name", "routing_key"},
		{"rabbitmqctl", "-q", "list_channels", "name", "messages_unconfirmed", "messages_uncommitted"},
		{"rabbitmqctl", "-q", "eval", `[{Q, catch ra:member_overview({Q, node()})} || Q <- ['%2F_spam.mails', '%2F_spam.dead']].`},
	} {
		answer, err := docker(append([]string{"exec", b.Name}, question...)...)
		b.t.Logf("%s: %s: %v\n%s", b.Name, question[2], err, answer)
	}
	log, _ := docker("logs", b.Name)
	for line := range strings.Lines(log) {
		if quorumLine.MatchString(line) {
			b.t.Log(strings.TrimSpace(line))
		}
	}
}

// Settle makes the broker's new queues durable, which a test does that makes some and kills the broker then. RabbitMQ 4.0 keeps what queues there are in Mnesia, and which log belongs to
// which quorum queue in a DETS file; both are written some seconds later. A SIGKILL before that loses a queue that was just made,
// with every message that was confirmed in it: it is gone, or it comes back empty, without a leader, and confirms nothing any
// more. No publisher can know, and the tests are about what comes after.
func (b *Broker) Settle() {
	b.t.Helper()
	b.Ctl("eval", "mnesia:sync_log(), [dets:sync(Table) || Table <- dets:all()].")
}

func brokerOptions() Options {
	return Options{
		Ports: map[int]int{portAMQP: 0, portManagement: 0},
		// The node's name is the name of its data folder.
		Args: []string{"--hostname", "rabbitmq"},
	}
}

func newBroker(t testing.TB, name string) *Broker {
	t.Helper()
	c := &Container{Name: name, t: t, net: "bridge"}
	return &Broker{
		Container: c, Host: "127.0.0.1", Port: c.Port(portAMQP),
		management: "127.0.0.1:" + strconv.Itoa(c.Port(portManagement)),
	}
}

func (b *Broker) login() {
	b.t.Helper()
	b.User, b.Password = "admin", b.UserPassword("admin")
}

// UserPassword returns the password that the image made for one of its users (admin, collector, bridge, reader).
func (b *Broker) UserPassword(user string) string {
	b.t.Helper()
	return b.Exec("cat", "/secrets/"+user+"/password")
}

// TLSPort is the published port of AMQP over TLS; the broker must have been started WithTLS.
func (b *Broker) TLSPort() int { b.t.Helper(); return b.Container.Port(portAMQPS) }

// URL is the amqp URL of the test's vhost, with user and password.
func (b *Broker) URL() string {
	return b.URLAt(net.JoinHostPort(b.Host, strconv.Itoa(b.Port)))
}

// URLAt is URL with another host:port, such as a Proxy's.
func (b *Broker) URLAt(hostPort string) string {
	u := url.URL{Scheme: "amqp", User: url.UserPassword(b.User, b.Password), Host: hostPort}
	return u.String() + "/" + url.PathEscape(b.VHost)
}

// Address is the broker's own host:port inside its network, which this machine reaches as well when it runs the engine: the
// way for measurements, since a published port goes through a process of docker's.
func (b *Broker) Address() string {
	b.t.Helper()
	ip := Docker(b.t, "inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", b.Name)
	return net.JoinHostPort(ip, strconv.Itoa(portAMQP))
}

// WaitReady returns when the broker answers an AMQP greeting, which it does once its definitions are loaded.
func (b *Broker) WaitReady() {
	b.t.Helper()
	if !waitFor(bootLimit, b.greets) {
		b.t.Fatalf("RabbitMQ in %s does not answer on port %d after %v", b.Name, b.Port, bootLimit)
	}
}

func (b *Broker) greets() bool {
	c, err := dial(net.JoinHostPort(b.Host, strconv.Itoa(b.Port)), time.Second)
	if err != nil {
		return false
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(3 * time.Second))
	if _, err := io.WriteString(c, "AMQP\x00\x00\x09\x01"); err != nil {
		return false
	}
	frame := make([]byte, 11)
	_, err = io.ReadFull(c, frame)
	// Connection.Start is class 10, method 10 (AMQP 0-9-1 §1.4).
	return err == nil && bytes.Equal(frame[7:], []byte{0, 10, 0, 10})
}

// Start starts a stopped or killed broker and returns when it takes connections.
func (b *Broker) Start() { b.t.Helper(); b.Container.Start(); b.WaitReady() }

// StopApp ends the broker's application and keeps its process (a graceful stop of a second); StartApp starts it again and
// returns when it takes connections.
func (b *Broker) StopApp() { b.t.Helper(); b.Ctl("stop_app") }

// StartApp undoes StopApp.
func (b *Broker) StartApp() { b.t.Helper(); b.Ctl("start_app"); b.WaitReady() }

// Ctl runs rabbitmqctl inside. One call costs over a second of CPU: API is cheaper where it can do the same.
func (b *Broker) Ctl(args ...string) string {
	b.t.Helper()
	return b.Exec(append([]string{"rabbitmqctl", "-q"}, args...)...)
}

// MemoryAlarm raises or clears the broker's memory alarm and returns when it has taken effect.
func (b *Broker) MemoryAlarm(on bool) {
	b.t.Helper()
	watermark := "0.6"
	if on {
		watermark = "0.0000001"
	}
	b.Ctl("set_vm_memory_high_watermark", watermark)
	b.waitAlarm("mem_alarm", on)
}

// DiskAlarm raises or clears the broker's alarm for free disk space and returns when it has taken effect, which may take 10 s.
func (b *Broker) DiskAlarm(on bool) {
	b.t.Helper()
	limit := "50MB"
	if on {
		limit = "1000GB"
	}
	b.Ctl("set_disk_free_limit", limit)
	b.waitAlarm("disk_free_alarm", on)
}

// The node's statistics, which show an alarm, are renewed every 5 s: so the alarm itself is asked for.
func (b *Broker) waitAlarm(kind string, on bool) {
	b.t.Helper()
	resource := map[string]string{"mem_alarm": "memory", "disk_free_alarm": "disk"}[kind]
	Eventually(b.t, 30*time.Second, fmt.Sprintf("%s is %v", kind, on), func() bool {
		alarms := b.Ctl("eval", "rabbit_alarm:get_alarms().")
		return strings.Contains(alarms, resource) == on
	})
}

// CloseAllConnections makes the broker close every connection of the test's vhost (320 CONNECTION_FORCED).
func (b *Broker) CloseAllConnections() {
	b.t.Helper()
	b.Ctl("close_all_connections", "--vhost", b.VHost, "closed by the test")
}

// MakeVHost makes a vhost that the administrator may use.
func (b *Broker) MakeVHost(name string) {
	b.t.Helper()
	b.API(http.MethodPut, "/api/vhosts/"+url.PathEscape(name), map[string]any{}, nil)
	b.Permit(b.User, name, ".*", ".*", ".*")
}

// MakeUser makes a user with a password and no rights. It goes when the test ends.
func (b *Broker) MakeUser(name, password string) {
	b.t.Helper()
	b.API(http.MethodPut, "/api/users/"+name, map[string]any{"password": password, "tags": ""}, nil)
	b.t.Cleanup(func() { b.API(http.MethodDelete, "/api/users/"+name, nil, nil) })
}

// Permit gives a user rights in a vhost: three regular expressions, as in rabbitmqctl set_permissions.
func (b *Broker) Permit(user, vhost, configure, write, read string) {
	b.t.Helper()
	b.API(http.MethodPut, "/api/permissions/"+url.PathEscape(vhost)+"/"+user,
		map[string]any{"configure": configure, "write": write, "read": read}, nil)
}

// API calls RabbitMQ's management API as administrator. body and answer are JSON and may be nil. Any status but 2xx ends
// the test, save a 404 to a DELETE.
func (b *Broker) API(method, path string, body, answer any) {
	b.t.Helper()
	if err := b.api(method, path, body, answer); err != nil {
		b.t.Fatalf("RabbitMQ management API: %v", err)
	}
}

func (b *Broker) api(method, path string, body, answer any) error {
	// Clean-ups call it when the test's context has ended.
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var send io.Reader
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return err
		}
		send = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+b.management+path, send)
	if err != nil {
		return err
	}
	req.SetBasicAuth(b.User, b.Password)
	req.Header.Set("Content-Type", "application/json")
	// No idle connection may outlive the call: tests look for leaked goroutines.
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if method == http.MethodDelete && resp.StatusCode == http.StatusNotFound {
		return nil
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, raw)
	}
	if answer != nil {
		return json.Unmarshal(raw, answer)
	}
	return nil
}
