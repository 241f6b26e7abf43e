package browser

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"image/png"
	"net"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/chromedp"

	"spamtraps.internal/libs/rig"
)

// output is what a program writes, readable while it does.
type output struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.all.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.all.String()
}

// start builds a service, runs it and returns the address of its page.
func start(t *testing.T, service string, env ...string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), service)
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "spamtraps.internal/"+service).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var written output
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), program)
	cmd.Stdout, cmd.Stderr = &written, &written
	cmd.Env = append(slices.Clone(env), "ADMIN_ADDR=127.0.0.1:0", "SENSOR=sensor-1", "SHUTDOWN_TIMEOUT=5s", "LOG_FORMAT=json")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%.20000s", &written)
		}
	})
	var addr string
	rig.Eventually(t, 30*time.Second, service+" listens", func() bool {
		for line := range strings.Lines(written.String()) {
			var event struct{ Message, Addr string }
			if json.Unmarshal([]byte(line), &event) == nil && event.Message == "listening" {
				addr = event.Addr
			}
		}
		return addr != "" && strings.Contains(written.String(), `"started"`)
	})
	return "http://" + addr + "/"
}

// tab is the one tab of a browser without a window.
type tab struct {
	t   *testing.T
	ctx context.Context //nolint:containedctx // chromedp's is the browser itself

	mu         sync.Mutex
	complaints []string
}

func open(t *testing.T) *tab {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.NoSandbox) // tests often run as root
	browser, stop := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(stop)
	ctx, closeTab := chromedp.NewContext(browser)
	t.Cleanup(closeTab)
	b := &tab{t: t, ctx: ctx}
	err := chromedp.Listen(ctx, func(event any) {
		if entry, ok := event.(*log.EventEntryAdded); ok {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.complaints = append(b.complaints, entry.Entry.Text)
		}
	})
	if err != nil {
		t.Fatalf("no browser can be started: install Chromium (Debian: apt-get install chromium): %v", err)
	}
	_ = call(b, log.Enable, cdp.Empty{})
	return b
}

// do does things one after the other.
func (b *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, steps...); err != nil {
		b.t.Fatal(err)
	}
}

// get returns what an action finds.
func get[T any](b *tab, action chromedp.Action[T]) T {
	b.t.Helper()
	value, err := chromedp.Run(b.ctx, action)
	if err != nil {
		b.t.Fatal(err)
	}
	return value
}

// call has the browser do what is no action on the page.
func call[P, R any](b *tab, cmd cdp.Command[P, R], params P) R {
	b.t.Helper()
	value, err := chromedp.Call(b.ctx, cmd, params)
	if err != nil {
		b.t.Fatal(err)
	}
	return value
}

// text opens a page and returns its text as it is shown.
func (b *tab) text(url string) string {
	b.t.Helper()
	b.do(chromedp.Navigate(url))
	return get(b, chromedp.Text(chromedp.CSS("body")))
}

// look is one way to look at a page.
type look struct {
	name   string
	width  int64
	scheme string // of colours
	dark   bool
}

var looks = []look{
	{"light", 1280, "light", false}, {"dark", 1280, "dark", true}, {"phone-light", 390, "light", false}, {"phone-dark", 390, "dark", true},
}

// see opens a page in each way, and checks what can be measured: it fills its width and no more, its style is applied in the colours that
// are wanted, and the browser complains of nothing. SCREENSHOTS names a folder to keep the pictures in.
func see(t *testing.T, url, name string) {
	t.Helper()
	b := open(t)
	for _, l := range looks {
		call(b, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: l.width, Height: 900, DeviceScaleFactor: 1, Mobile: l.width < 500})
		call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: l.scheme}}})
		b.do(chromedp.Navigate(url))
		overflow := get(b, chromedp.Evaluate[bool](`document.documentElement.scrollWidth > innerWidth`))
		shown := get(b, chromedp.Evaluate[string](`getComputedStyle(document.querySelector("h1")).fontSize`))
		picture := get(b, chromedp.CaptureScreenshot())
		if overflow {
			t.Errorf("%s: the page is wider than the screen", l.name)
		}
		if shown != "22.4px" {
			t.Errorf("%s: the style is not applied: %s", l.name, shown)
		}
		image, err := png.Decode(bytes.NewReader(picture))
		if err != nil {
			t.Fatal(err)
		}
		if r, g, b, _ := image.At(1, 1).RGBA(); (r+g+b < 3*0x8000) != l.dark {
			t.Errorf("%s: the ground is %x %x %x", l.name, r>>8, g>>8, b>>8)
		}
		if folder := os.Getenv("SCREENSHOTS"); folder != "" {
			if err := os.WriteFile(filepath.Join(folder, name+"-"+l.name+".png"), picture, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.complaints) > 0 {
		t.Errorf("the browser complains: %q", b.complaints)
	}
}

// mailboxes writes a file of n mailboxes, of which the first five answer.
func mailboxes(t *testing.T, box *rig.Dovecot, n int) string {
	t.Helper()
	var file strings.Builder
	for i := range n {
		if i < 5 {
			fmt.Fprintf(&file, "- {name: trap-%04d, tls: implicit, username: %s, password: %s, host: %s, port: %d, ca_file: %s}\n", i, box.User("status"), box.Password, box.Host, box.TLSPort, box.CAFile)
			continue
		}
		name := fmt.Sprintf("name: trap-%04d, ", i)
		if i%2 == 0 {
			name = "" // it goes by its address then, but not on the page
		}
		fmt.Fprintf(&file, "- {%susername: hidden-%d@secret.example, password: hunter2, host: 127.0.0.1, port: 1, tls: none}\n", name, i)
	}
	path := filepath.Join(t.TempDir(), "mailboxes.yml")
	if err := os.WriteFile(path, []byte(file.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// The page of imap-collector shows ten mailboxes as well as a thousand, and a click on a heading sorts them.
func TestMailboxes(t *testing.T) {
	broker, box := rig.SharedBroker(t), rig.SharedDovecot(t)
	for _, n := range []int{10, 1000} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			url := start(t, "imap-collector", "AMQP_URL="+broker.URL(), "MAILBOX_CONFIG="+mailboxes(t, box, n), "IMAP_CONTINUOUS=true", "IMAP_STATE="+t.TempDir())
			b := open(t)
			rig.Eventually(t, time.Minute, "the mailboxes that answer are looked at, and another has failed", func() bool {
				shown := b.text(url)
				return strings.Count(shown, "idling") == 5 && strings.Contains(shown, "connection refused")
			})
			rows := get(b, chromedp.Evaluate[int](`document.querySelectorAll("tbody tr").length`))
			heading := chromedp.CSS(`th:nth-child(3) a`)
			b.do(chromedp.Click(heading), chromedp.WaitVisible(chromedp.CSS(`th[aria-sort=ascending]`)),
				chromedp.Click(heading), chromedp.WaitVisible(chromedp.CSS(`th[aria-sort=descending]`)))
			first := get(b, chromedp.Text(chromedp.CSS(`tbody tr:first-child td:nth-child(2)`)))
			if rows != n || first != "idling" {
				t.Errorf("%d rows, the first of them %s", rows, first)
			}
			shown := b.text(url)
			for _, never := range []string{"hunter2", "secret.example", "hidden-", box.Password, "@trap.example"} {
				if strings.Contains(shown, never) {
					t.Errorf("the page shows %q", never)
				}
			}
			see(t, url+"?sort=-state", fmt.Sprintf("imap-%d", n))
		})
	}
}

// What flows through lmtp-collector is on its page.
func TestMail(t *testing.T) {
	broker := rig.SharedBroker(t)
	socket := filepath.Join(t.TempDir(), "lmtp")
	url := start(t, "lmtp-collector", "AMQP_URL="+broker.URL(), "LMTP_LISTEN=unix:"+socket, "MAILDIR="+t.TempDir())
	deliver(t, socket, "trap@secret.example")
	b := open(t)
	shown := b.text(url)
	for _, want := range []string{"lmtp-collector sensor-1", "ready", "Answered 250\n1\n", "Waiting in the spool\n", "unix socket"} {
		if !strings.Contains(shown, want) {
			t.Errorf("%q is missing in\n%s", want, shown)
		}
	}
	if strings.Contains(shown, "secret.example") {
		t.Errorf("the page shows a recipient:\n%s", shown)
	}
	see(t, url, "lmtp")
}

// The page of hpfeeds-bridge tells of both ends.
func TestBridge(t *testing.T) {
	broker := rig.SharedBroker(t)
	url := start(t, "hpfeeds-bridge", "AMQP_URL="+broker.URL(), "HPFEEDS_HOST=127.0.0.1", "HPFEEDS_PORT=1", "HPFEEDS_IDENT=writer", "HPFEEDS_SECRET=hunter2", "HPFEEDS_TLS=false", "HPFEEDS_CHANNELS=spam.mails")
	b := open(t)
	rig.Eventually(t, 30*time.Second, "RabbitMQ is there, and hpfeeds is not", func() bool {
		shown := b.text(url)
		return strings.Contains(shown, "not ready") && strings.Contains(shown, "connection refused") && strings.Contains(shown, "not consuming from queue")
	})
	if shown := b.text(url); strings.Contains(shown, "hunter2") {
		t.Errorf("the page shows a password:\n%s", shown)
	}
	see(t, url, "bridge")
}

// deliver hands one mail in.
func deliver(t *testing.T, socket, to string) {
	t.Helper()
	var conn net.Conn
	rig.Eventually(t, 30*time.Second, "mail is taken", func() bool {
		var err error
		if conn, err = (&net.Dialer{}).DialContext(t.Context(), "unix", socket); err != nil {
			return false
		}
		talk := textproto.NewConn(conn)
		if _, _, err := talk.ReadResponse(220); err != nil {
			return false
		}
		for _, step := range []struct {
			line string
			want int
		}{
			{"LHLO mta.example", 250}, {"MAIL FROM:<a@x.example>", 250}, {"RCPT TO:<" + to + ">", 250}, {"DATA", 354}, {"Subject: s\r\n\r\nText\r\n.", 250}, {"QUIT", 221},
		} {
			if err := talk.PrintfLine("%s", step.line); err != nil {
				return false
			}
			if _, _, err := talk.ReadResponse(step.want); err != nil {
				_ = conn.Close()
				return false
			}
		}
		return true
	})
	_ = conn.Close()
}
