package hpfeeds_test

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"spamtraps.internal/libs/hpfeeds"
	"spamtraps.internal/libs/secret"
)

func TestValidate(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*hpfeeds.Config)
		want   []string
	}{
		{"as it comes", func(*hpfeeds.Config) {}, nil},
		{"configured", func(c *hpfeeds.Config) { c.Host, c.Secret = "broker.example", secret.New("x") }, nil},
		{"an address", func(c *hpfeeds.Config) { c.Host, c.Secret = "2001:db8::1", secret.FromFile("/nowhere") }, nil},
		{"a port in the host", func(c *hpfeeds.Config) { c.Host, c.Secret = "broker.example:10000", secret.New("x") }, []string{"HOST must be a host name or an address, without a port"}},
		{"a URL", func(c *hpfeeds.Config) { c.Host, c.Secret = "hpfeeds://u:p@x", secret.New("x") }, []string{"HOST must be a host name or an address, without a port"}},
		{"no secret", func(c *hpfeeds.Config) { c.Host = "broker.example" }, []string{"SECRET must be set when HPFEEDS_HOST is"}},
		{"port 0", func(c *hpfeeds.Config) { c.Port = 0 }, []string{"PORT must be between 1 and 65535, not 0"}},
		{"no ident", func(c *hpfeeds.Config) { c.Ident = "" }, []string{"IDENT must not be empty"}},
		{"long ident", func(c *hpfeeds.Config) { c.Ident = strings.Repeat("i", 128) }, []string{"IDENT must have at most 127 bytes, not 128"}},
		{"ident of control characters", func(c *hpfeeds.Config) { c.Ident = "a\x1bb" }, []string{"IDENT must be printable text"}},
		{"no channels", func(c *hpfeeds.Config) { c.Channels = nil }, []string{"CHANNELS must not be empty"}},
		{"a channel twice", func(c *hpfeeds.Config) { c.Channels = []string{"a", "b", "a"} }, []string{`CHANNELS must name each channel once, and "a" is there twice`}},
		{"a long channel", func(c *hpfeeds.Config) { c.Channels = []string{"a", strings.Repeat("b", 200)} }, []string{"CHANNELS must have at most 127 bytes, not 200; entry 2 is not so"}},
		{"authorities without TLS", func(c *hpfeeds.Config) { c.CAFile = "ca.pem" }, []string{"CA_FILE contradicts HPFEEDS_TLS, which is off"}},
		{"authorities without verification", func(c *hpfeeds.Config) { c.TLS, c.CheckCert, c.CAFile = true, false, "ca.pem" }, []string{"CA_FILE contradicts HPFEEDS_CHECK_CERT, which is off"}},
		{"a negative limit", func(c *hpfeeds.Config) { c.MaxPayload = -1 }, []string{"MAX_PAYLOAD must be between 1 and 1073741824, or 0 for what the Python broker takes, not -1"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg := hpfeeds.Defaults()
			test.change(&cfg)
			var got []string
			cfg.Validate(func(name, problem string) { got = append(got, name+" "+problem) })
			if !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestPayloadLimitOfConfig(t *testing.T) {
	cfg := hpfeeds.Defaults()
	if got := cfg.PayloadLimit("spam.mails"); got != 1048558 {
		t.Errorf("by default %d", got)
	}
	cfg.MaxPayload = 10 << 20
	if got := cfg.PayloadLimit("spam.mails"); got != 10<<20 {
		t.Errorf("as set %d", got)
	}
}

func TestBackoff(t *testing.T) {
	away := &hpfeeds.Error{Reason: hpfeeds.ReasonUnreachable, Err: io.EOF}
	refused := &hpfeeds.Error{Reason: hpfeeds.ReasonAuth, Permanent: true, Err: io.EOF}
	hungUp := &hpfeeds.Error{Reason: hpfeeds.ReasonHungUp, Err: io.EOF}
	const ms = time.Millisecond
	for _, test := range []struct {
		name   string
		errs   []error
		lasted time.Duration // of each connection
		want   []time.Duration
	}{
		{"away", []error{away, away, away, away, away, away, away}, 0, []time.Duration{100 * ms, 200 * ms, 400 * ms, 800 * ms, 1600 * ms, 2 * time.Second, 2 * time.Second}},
		{"refused", []error{refused, refused, refused, refused, refused, refused, refused, refused}, 0, []time.Duration{
			5 * time.Second, 10 * time.Second, 20 * time.Second, 40 * time.Second, 80 * time.Second, 160 * time.Second, 5 * time.Minute, 5 * time.Minute,
		}},
		{"hung up once is a restart", []error{hungUp, away, hungUp}, 0, []time.Duration{100 * ms, 200 * ms, 400 * ms}},
		{"hung up twice is a refusal", []error{hungUp, hungUp, hungUp, away}, 0, []time.Duration{100 * ms, 5 * time.Second, 10 * time.Second, 100 * ms}},
		{"stable in between", []error{away, away, away}, 11 * time.Second, []time.Duration{100 * ms, 100 * ms, 100 * ms}},
		{"any other error", []error{io.EOF, io.EOF}, 0, []time.Duration{100 * ms, 200 * ms}},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := hpfeeds.Backoff{Jitter: func(d time.Duration) time.Duration { return d }}
			for i, err := range test.errs {
				if got := b.Next(test.lasted, err); got != test.want[i] {
					t.Errorf("pause %d is %v, not %v", i, got, test.want[i])
				}
			}
		})
	}
}

// TestBackoffOfOneThatWasAdmitted: a broker that dies again and again soon after it has let us in does not refuse us.
func TestBackoffOfOneThatWasAdmitted(t *testing.T) {
	hungUp := &hpfeeds.Error{Reason: hpfeeds.ReasonHungUp, Err: io.EOF}
	b := hpfeeds.Backoff{Jitter: func(d time.Duration) time.Duration { return d }}
	for i := range 8 {
		b.Admitted()
		if got := b.Next(time.Second, hungUp); got > 2*time.Second {
			t.Errorf("pause %d is %v", i, got)
		}
	}
	b.Next(time.Second, hungUp) // not admitted: the first that counts
	if got := b.Next(time.Second, hungUp); got != 5*time.Second {
		t.Errorf("a refusal, after all: %v", got)
	}
}

// TestBackoffWaits: pauses are jittered, and end with the context.
func TestBackoffWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seen := make(map[time.Duration]bool)
		var b hpfeeds.Backoff
		for range 20 {
			begin := time.Now()
			if err := b.Wait(t.Context(), 0, io.EOF); err != nil {
				t.Fatal(err)
			}
			took := time.Since(begin)
			if seen[took] = true; took > 2*time.Second {
				t.Errorf("a pause of %v", took)
			}
		}
		if len(seen) < 10 {
			t.Errorf("only %d different pauses of 20", len(seen))
		}
	})
}

// FuzzSanitize: whatever a broker says can be shown.
func FuzzSanitize(f *testing.F) {
	f.Add("Authentication failed for x")
	f.Add("\xff\xfe\x1b[31m\u202e\u2066\u0085\u009b\u2028\r\n\x00")
	f.Add("sécret \U0001f4e7 日本")
	f.Fuzz(func(t *testing.T, text string) {
		clean := hpfeeds.Sanitize(text)
		if !utf8.ValidString(clean) || strings.ContainsAny(clean, "\x00\x07\x1b\r\n\t\u0085\u009b\u2028\u2029\u200e\u200f\u202a\u202e\u2066\u2069\ufeff") {
			t.Errorf("%q became %q", text, clean)
		}
		if hpfeeds.Sanitize(clean) != clean {
			t.Errorf("%q changes again", clean)
		}
		for _, r := range clean {
			if r < 0x20 || (r >= 0x7f && r < 0xa0) {
				t.Errorf("%q has %U", clean, r)
			}
		}
	})
}

// FuzzRefusal: any text of an ERROR makes an error that is short, can be shown, and is one of the kinds.
func FuzzRefusal(f *testing.F) {
	for _, text := range []string{
		"Authentication failed for x", "authfail", "identfail", "accessfail", "Authkey not allowed to pub here. ident=x, chan=y", "", "\xff\xfe\x1b[31m",
		strings.Repeat("é", 5000),
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		e := hpfeeds.Refusal(text)
		if len(e.Error()) > 4*256+200 || hpfeeds.Sanitize(e.Error()) != e.Error() {
			t.Errorf("%q cannot be shown", e.Error())
		}
		if want := e.Reason == hpfeeds.ReasonAuth || e.Reason == hpfeeds.ReasonRights; e.Permanent != want || (!want && e.Reason != hpfeeds.ReasonRefused) {
			t.Errorf("%+v", e)
		}
	})
}

func TestRefusalTexts(t *testing.T) {
	for text, want := range map[string]hpfeeds.Reason{
		"Authentication failed for writer": hpfeeds.ReasonAuth,
		"authfail":                         hpfeeds.ReasonAuth,
		"identfail":                        hpfeeds.ReasonAuth,
		"accessfail":                       hpfeeds.ReasonRights,
		"Authkey not allowed to pub here. ident=writer, chan=x":              hpfeeds.ReasonRights,
		"Authkey not allowed to sub here. ident=writer, chan=x":              hpfeeds.ReasonRights,
		"Backpressure deadline timer expired":                                hpfeeds.ReasonRefused,
		"something about how authentication failed for somebody else, sorry": hpfeeds.ReasonRefused,
		"": hpfeeds.ReasonRefused,
	} {
		var e *hpfeeds.Error
		if err := error(hpfeeds.Refusal([]byte(text))); !errors.As(err, &e) || e.Reason != want {
			t.Errorf("%q is %v, want %v", text, err, want)
		}
	}
}
